import type { NativeSampler } from "../../typings/native.js";
import type { CacheState } from "../cache/cache.js";
import { checkPositions, step } from "../model/forward.js";
import { native, sync } from "../native.js";
import type { KvCache } from "../types.js";
import type { Beginning, Choice, TokenSource } from "./generation.js";
import { budget, type Decoding } from "./options.js";

/** A sampler that counts `history` for its penalties. */
export function makeSampler(decoding: Decoding, history: Uint32Array): NativeSampler {
  const { NativeSampler } = native();
  return sync(() => new NativeSampler({ ...decoding.sampling, history }));
}

/** Tokens of one model on one cache, which it holds from the first token asked for to the end. */
export class SoloSource implements TokenSource {
  readonly #state: CacheState;
  /** Keeps the handle from being collected while the generation lives. */
  readonly cache: KvCache;
  readonly #next: Uint32Array;
  readonly #decoding: Decoding;
  #sampler: NativeSampler | undefined;
  #release: (() => void) | undefined;

  constructor(cache: KvCache, state: CacheState, next: Uint32Array, decoding: Decoding) {
    this.cache = cache;
    this.#state = state;
    this.#next = next;
    this.#decoding = decoding;
  }

  async begin(signal: AbortSignal): Promise<Beginning> {
    this.#release = this.#state.claim("generate");
    const before = this.#state.native.tokens();
    const positions = checkPositions(this.#state.model, this.#next.length, this.#state.last());
    const limit = budget(this.#state.model, this.#decoding.maxNewTokens, positions.at(-1) ?? 0);
    const history = new Uint32Array(before.length + this.#next.length);
    history.set(before);
    history.set(this.#next, before.length);
    this.#sampler = makeSampler(this.#decoding, history);
    const start = performance.now();
    const { id, logits } = await this.#step(this.#sampler, this.#next, positions, signal);
    const prefillMs = performance.now() - start;
    return { id, logits, limit, promptTokens: history.length, prefillMs, sharerMs: 0, fuseMs: 0 };
  }

  async step(id: number, signal: AbortSignal): Promise<Choice> {
    const sampler = this.#sampler;
    if (sampler === undefined) {
      throw new Error("step before begin");
    }
    this.#state.life.check();
    const positions = checkPositions(this.#state.model, 1, this.#state.last());
    return this.#step(sampler, Uint32Array.of(id), positions, signal);
  }

  end(): void {
    this.#release?.();
  }

  #step(sampler: NativeSampler, tokens: Uint32Array, positions: Uint32Array, signal: AbortSignal): Promise<Choice> {
    return step(this.#state, sampler, tokens, positions, this.#decoding.logits, signal);
  }
}
