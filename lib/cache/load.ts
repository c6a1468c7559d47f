import { untilAborted } from "../abort.js";
import { C2CError } from "../errors.js";
import { modelState } from "../model/state.js";
import { native, run, sync } from "../native.js";
import type { KvCache, LoadCacheOptions, Model } from "../types.js";
import { invalid, withFile } from "../weights/file.js";
import { makeCache } from "./cache.js";
import { partTensors, type ReadCacheFile, readCacheHeader } from "./file.js";
import { historyOf } from "./history.js";
import { checkPolicy } from "./policy.js";

/**
 * A cache from a file that `KvCache.save` wrote for the same model (config, weights, `quantize`) in the same dtype. The file is read
 * through once to check it, and then mapped: its rows stay in it, whoever writes over some copies them, and what is appended lies in
 * memory. The file may be replaced or deleted while the cache lives, but must not be written over in place.
 * CACHE_FOREIGN for another model's file; FILE_INVALID for one that is truncated, altered or none; IO_FAILED; an abort rejects with
 * `signal.reason`.
 */
export async function loadCache(path: string, model: Model, options: LoadCacheOptions = {}): Promise<KvCache> {
  const { signal } = options;
  const state = modelState(model);
  state.life.check();
  signal?.throwIfAborted();
  return await withFile(path, async (handle, size) => {
    const file = await readCacheHeader(handle, path, size);
    const whole = await run(signal, (cancel) =>
      native().checkCacheFile(handle.fd, path, file.checksumAt, file.checksum, cancel),
    );
    if (!whole) throw invalid(path, "its content does not have its checksum");
    const fingerprint = await untilAborted(state.fingerprint(), signal);
    checkModel(path, file, model, fingerprint);
    state.life.check();
    return map(handle.fd, path, file, model);
  });
}

function checkModel(path: string, file: ReadCacheFile, model: Model, fingerprint: string): void {
  const { name } = modelState(model);
  if (file.model.fingerprint !== fingerprint || file.dtype !== model.dtype) {
    const expected = `${name} ${fingerprint} ${model.dtype}`;
    const actual = `${file.model.name} ${file.model.fingerprint} ${file.dtype}`;
    const message = `${path} is a cache of ${file.model.name} in ${file.dtype}, not of ${name} in ${model.dtype}`;
    const why = file.model.fingerprint === fingerprint ? "" : ": another config or other weights";
    throw new C2CError("CACHE_FOREIGN", { expected, actual }, `${message}${why}`);
  }
  for (const part of ["layers", "kvHeads", "headDim"] as const) {
    if (file.layout[part] !== model.shape[part]) throw invalid(path, `layout.${part} is not the model's`);
  }
}

function map(fd: number, path: string, file: ReadCacheFile, model: Model): KvCache {
  const begin = (name: string): number => file.tensors.get(name)?.begin ?? -1;
  const { rows, parts } = file.layout;
  const { capacity, policy } = file.room;
  const spec = {
    rows,
    tokens: begin("tokens"),
    positions: begin("positions"),
    parts: parts.map((part, i) => ({ ...part, begins: Float64Array.from(partTensors(i, part), begin) })),
    capacity,
    policy: policy === null ? null : inFile(path, () => checkPolicy(policy)),
  };
  if (policy !== null && (capacity === null || capacity > model.shape.context)) {
    throw invalid(path, "room: a policy without a capacity inside the context");
  }
  const loaded = inFile(path, () => sync(() => modelState(model).native.loadCache(fd, path, spec)));
  return makeCache(model, loaded, { history: historyOf(file.fused, policy !== null), capacity, policy });
}

/** What is wrong with a value that came from a file is wrong with the file. */
function inFile<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof C2CError && error.code === "OPTION_INVALID") throw invalid(path, error.message);
    throw error;
  }
}
