import type { NativeCache } from "../../typings/native.js";
import { untilAborted } from "../abort.js";
import { modelState } from "../model/state.js";
import { run, sync } from "../native.js";
import type { Model, SaveOptions, SaveReport } from "../types.js";
import { writeWhole } from "../weights/atomic.js";
import type { CacheState } from "./cache.js";
import { writeHeader } from "./file.js";

const EXACT = { relative: 0, largest: 0 } as const;

/** Writes the cache as it is now; see `KvCache.save`. */
export async function saveCache(state: CacheState, path: string, options: SaveOptions = {}): Promise<SaveReport> {
  const { signal } = options;
  state.free("save");
  modelState(state.model).life.check();
  signal?.throwIfAborted();
  // Rows are shared: the caller goes on writing to the cache while these stay as they are.
  const rows = sync(() => state.native.fork());
  try {
    const history = state.history.copy();
    const { capacity, policy } = state;
    const origin = modelState(state.model);
    const fingerprint = await untilAborted(origin.fingerprint(), signal);
    const fused = await untilAborted(history.describe(), signal);
    const header = { model: { name: origin.name, fingerprint }, fused, room: { capacity, policy } };
    const bytes = await writeFile(state.model, rows, path, header, signal);
    return { bytes, saved: 0, keyError: EXACT, valueError: EXACT };
  } finally {
    rows.dispose();
  }
}

async function writeFile(
  model: Model,
  rows: NativeCache,
  path: string,
  header: Pick<Parameters<typeof writeHeader>[0], "model" | "fused" | "room">,
  signal: AbortSignal | undefined,
): Promise<number> {
  const plan = sync(() => rows.plan());
  const { layers, kvHeads, headDim } = model.shape;
  const layout = { layers, kvHeads, headDim, rows: rows.length, parts: plan.parts };
  const dtype = model.dtype === "float32" ? "float32" : "bfloat16";
  const { bytes, checksumAt } = writeHeader({ ...header, dtype, layout }, plan);
  let total = 0;
  await writeWhole(path, async (handle) => {
    await run(signal, (cancel) => rows.save(handle.fd, path, bytes, checksumAt, cancel));
    total = (await handle.stat()).size;
    signal?.throwIfAborted();
  });
  return total;
}
