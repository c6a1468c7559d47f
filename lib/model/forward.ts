import type { LogitsWanted, NativeCancel, NativeSampler } from "../../typings/native.js";
import { type CacheState, cacheState } from "../cache/cache.js";
import { C2CError } from "../errors.js";
import { native, run } from "../native.js";
import { invalid } from "../options.js";
import type { KvCache, Model } from "../types.js";
import { type ModelState, modelState } from "./state.js";

/** The state of a cache that must belong to `model`: CACHE_FOREIGN, DISPOSED. */
export function ownCache(model: Model, cache: KvCache, option = "cache"): CacheState {
  const state = cacheState(cache, option);
  state.life.check();
  if (state.model !== model) {
    const details = { expected: model.id, actual: state.model.id };
    throw new C2CError(
      "CACHE_FOREIGN",
      details,
      `${option} belongs to another model (${state.model.id}), not to ${model.id}`,
    );
  }
  return state;
}

/**
 * Positions of `count` new rows: those given, copied, else what follows `last`. CACHE_FULL for a position past the model's context,
 * OPTION_INVALID for a wrong number of them.
 */
export function checkPositions(model: Model, count: number, last: number, given?: Uint32Array): Uint32Array {
  if (given !== undefined && (!(given instanceof Uint32Array) || given.length !== count)) {
    throw invalid("positions", `must be a Uint32Array with one position for each of the ${count} tokens`);
  }
  const positions = given?.slice() ?? Uint32Array.from({ length: count }, (_, i) => last + 1 + i);
  const { context } = model.shape;
  for (const position of positions) {
    if (position >= context) {
      const details = { length: position + 1, capacity: context };
      throw new C2CError("CACHE_FULL", details, `position ${position} is past the context of ${context} positions`);
    }
  }
  return positions;
}

/** Runs native work on a claimed cache; both handles stay alive until it settles. */
async function work<T>(
  model: ModelState,
  cache: CacheState,
  signal: AbortSignal | undefined,
  job: (cancel: NativeCancel | null) => Promise<T>,
): Promise<T> {
  model.life.check();
  cache.life.check();
  model.life.enter();
  cache.life.enter();
  try {
    return await run(signal, job);
  } finally {
    cache.life.leave();
    model.life.leave();
  }
}

/** NativeModel.forward on a cache that the caller has claimed. No tokens: nothing runs. */
export async function forward(
  cache: CacheState,
  tokens: Uint32Array,
  positions: Uint32Array | null,
  logits: LogitsWanted,
  signal?: AbortSignal,
  given = false,
): Promise<Float32Array | null> {
  if (tokens.length === 0) {
    signal?.throwIfAborted();
    return logits === "none" ? null : new Float32Array(0);
  }
  const model = modelState(cache.model);
  return work(model, cache, signal, (cancel) =>
    model.native.forward(cache.native, tokens, positions, logits, given, cancel),
  );
}

/** Rows that a cache is to read; `cache` is claimed by the caller. */
export interface Prefill {
  readonly cache: CacheState;
  readonly tokens: Uint32Array;
  readonly positions: Uint32Array;
}

/**
 * Prefills caches that differ, all submitted before any starts: those of different models on one GPU run side by side, others one
 * after the other. Rejects with the first failure once all have settled.
 */
export async function prefillTogether(prefills: readonly Prefill[], signal?: AbortSignal): Promise<void> {
  const states = prefills.map(({ cache }) => modelState(cache.model));
  const lives = new Set([...states.map(({ life }) => life), ...prefills.map(({ cache }) => cache.life)]);
  for (const life of lives) {
    life.check();
  }
  const all = prefills.map(({ cache, tokens, positions }) => {
    return { model: modelState(cache.model).native, cache: cache.native, tokens, positions };
  });
  const work = run(signal, async (cancel) => {
    const results = await Promise.allSettled(native().prefillTogether(all, cancel));
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) {
      throw failed.reason;
    }
  });
  for (const life of lives) {
    life.track(work);
  }
  await work;
}

/**
 * Appends tokens behind the last row. Where a policy makes room, they come in pieces of half of what it can take at once, so that
 * each piece still sees rows before it. `logits`: of all rows, [tokens.length, vocab].
 */
export async function extend(
  cache: CacheState,
  tokens: Uint32Array,
  logits: "none" | "all",
  signal?: AbortSignal,
): Promise<Float32Array | null> {
  const { most } = cache.native;
  if (most === null || tokens.length <= Math.ceil(most / 2)) {
    return forward(cache, tokens, null, logits, signal);
  }
  const piece = Math.ceil(most / 2);
  const all = logits === "none" ? null : new Float32Array(tokens.length * cache.model.shape.vocab);
  for (let start = 0; start < tokens.length; start += piece) {
    const part = await forward(cache, tokens.subarray(start, start + piece), null, logits, signal);
    if (part !== null) {
      all?.set(part, start * cache.model.shape.vocab);
    }
  }
  return all;
}

/** NativeModel.step on a cache that the caller has claimed. */
export async function step(
  cache: CacheState,
  sampler: NativeSampler,
  tokens: Uint32Array,
  positions: Uint32Array | null,
  wantLogits: boolean,
  signal?: AbortSignal,
  given = false,
): Promise<{ id: number; logits: Float32Array | null }> {
  const model = modelState(cache.model);
  const chosen = await work(model, cache, signal, (cancel) =>
    model.native.step(cache.native, sampler, tokens, positions, given, wantLogits, cancel),
  );
  return typeof chosen === "number" ? { id: chosen, logits: null } : chosen;
}
