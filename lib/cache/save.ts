import type { NativeCache } from "../../typings/native.js";
import { untilAborted } from "../abort.js";
import { modelState } from "../model/state.js";
import { run, sync } from "../native.js";
import type { Model, QuantizedForm, SaveOptions, SaveReport } from "../types.js";
import { writeWhole } from "../weights/atomic.js";
import type { CacheState } from "./cache.js";
import { type CacheHeader, writeHeader } from "./file.js";
import { checkForm } from "./quantize.js";

const EXACT = { relative: 0, largest: 0 } as const;

/** Writes the cache as it is now; see `KvCache.save`. */
export async function saveCache(state: CacheState, path: string, options: SaveOptions = {}): Promise<SaveReport> {
  const { signal, quantize } = options;
  const form = quantize === undefined ? undefined : checkForm("quantize", quantize);
  state.free("save");
  modelState(state.model).life.check();
  signal?.throwIfAborted();
  const history = state.history.copy();
  const { capacity, policy } = state;
  const { rows, keyError, valueError } = await rowsOf(state, form, signal);
  try {
    const origin = modelState(state.model);
    const fingerprint = await untilAborted(origin.fingerprint(), signal);
    const fused = await untilAborted(history.describe(), signal);
    const header = { model: { name: origin.name, fingerprint }, fused, room: { capacity, policy } };
    return { ...(await writeFile(state.model, rows, path, header, signal)), keyError, valueError };
  } finally {
    rows.dispose();
  }
}

/** The cache's rows, shared: the caller goes on writing to the cache while these stay as they are. */
async function rowsOf(state: CacheState, form: QuantizedForm | undefined, signal: AbortSignal | undefined) {
  if (form === undefined) {
    return { rows: sync(() => state.native.fork()), keyError: EXACT, valueError: EXACT };
  }
  const { cache, keyError, valueError } = await run(signal, (cancel) => state.native.quantize(form, cancel));
  return { rows: cache, keyError, valueError };
}

async function writeFile(
  model: Model,
  rows: NativeCache,
  path: string,
  header: Pick<CacheHeader, "model" | "fused" | "room">,
  signal: AbortSignal | undefined,
): Promise<{ readonly bytes: number; readonly saved: number }> {
  const plan = sync(() => rows.plan());
  const { layers, kvHeads, headDim } = model.shape;
  const layout = { layers, kvHeads, headDim, rows: rows.length, parts: plan.parts };
  const dtype = model.dtype === "float32" ? "float32" : "bfloat16";
  const { bytes, checksumAt, taken } = writeHeader({ ...header, dtype, layout }, plan);
  let total = 0;
  await writeWhole(path, async (handle) => {
    await run(signal, (cancel) => rows.save(handle.fd, path, bytes, checksumAt, cancel));
    total = (await handle.stat()).size;
    signal?.throwIfAborted();
  });
  const plain = rows.length * 2 * layers * kvHeads * headDim * (dtype === "float32" ? 4 : 2);
  return { bytes: total, saved: plain - taken };
}
