import { modelState } from "../model/state.js";
import { run } from "../native.js";
import { choice } from "../options.js";
import type { QuantizedCache, QuantizedForm, QuantizeOptions } from "../types.js";
import { type CacheState, makeCache } from "./cache.js";

const forms = ["int8", "int4"] as const;

/** OPTION_INVALID for any other. */
export function checkForm(option: string, form: QuantizedForm): QuantizedForm {
  return choice(option, form, forms);
}

/** A cache of the same rows in fewer bits; see `KvCache.quantize`. */
export async function quantizeCache(
  state: CacheState,
  form: QuantizedForm,
  options: QuantizeOptions = {},
): Promise<QuantizedCache> {
  checkForm("form", form);
  state.free("quantize");
  modelState(state.model).life.check();
  const origin = state.origin();
  const made = await run(options.signal, (cancel) => state.native.quantize(form, cancel));
  const { bytes, plain, keyError, valueError } = made;
  const cache = makeCache(state.model, made.cache, origin);
  return { cache, report: { bytes, saved: plain - bytes, keyError, valueError } };
}
