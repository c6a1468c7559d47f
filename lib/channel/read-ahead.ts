import type { CacheState } from "../cache/cache.js";
import type { Reading } from "../cache/prefix.js";
import { deviceName } from "../device.js";
import { type Prefill, prefillTogether } from "../model/forward.js";

/** A cache that is to hold the first `end` rows of what its model reads; it holds the first of them already. */
export interface Wanted {
  readonly cache: CacheState | undefined;
  readonly reading: Reading;
  readonly end: number;
}

/**
 * Has the first cache's model and those of others on the same GPU read side by side; whatever is left, all of it on the CPU, stays
 * for later. Returns the milliseconds that it took, 0 where nothing was read.
 */
export async function readAhead(wanted: readonly Wanted[], signal?: AbortSignal): Promise<number> {
  const device = wanted[0]?.cache?.model.device;
  if (device === undefined || device.kind === "cpu") {
    return 0;
  }
  const prefills = wanted.flatMap(({ cache, reading, end }): Prefill[] => {
    const start = cache?.native.length ?? end;
    if (cache === undefined || start >= end || deviceName(cache.model.device) !== deviceName(device)) {
      return [];
    }
    return [{ cache, tokens: reading.ids.subarray(start, end), positions: reading.positions.subarray(start, end) }];
  });
  if (prefills.length < 2) {
    return 0;
  }
  const began = performance.now();
  await prefillTogether(prefills, signal);
  return performance.now() - began;
}
