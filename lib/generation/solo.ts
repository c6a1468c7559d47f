import type { NativeSampler } from "../../typings/native.js";
import type { CacheState } from "../cache/cache.js";
import { checkPositions, extend, step } from "../model/forward.js";
import { native, sync } from "../native.js";
import type { KvCache } from "../types.js";
import type { Beginning, Choice, TokenSource } from "./generation.js";
import { budget, type Decoding, defaultMaxNewTokens } from "./options.js";

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
  /** Of a step; the native side copies what it is called with. */
  readonly #one = new Uint32Array(1);
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
    const limit = this.#limit();
    const history = new Uint32Array(before.length + this.#next.length);
    history.set(before);
    history.set(this.#next, before.length);
    this.#sampler = makeSampler(this.#decoding, history);
    const start = performance.now();
    const last = this.#next.length - 1;
    if (this.#endless) {
      await extend(this.#state, this.#next.subarray(0, last), "none", signal);
    }
    const { id, logits } = await this.#step(this.#sampler, this.#next.subarray(this.#endless ? last : 0), signal);
    const prefillMs = performance.now() - start;
    return { id, logits, limit, promptTokens: history.length, prefillMs, sharerMs: 0, fuseMs: 0 };
  }

  step(id: number, signal: AbortSignal): Promise<Choice> {
    const sampler = this.#sampler;
    if (sampler === undefined) {
      throw new Error("step before begin");
    }
    this.#state.life.check();
    this.#one[0] = id;
    return this.#step(sampler, this.#one, signal);
  }

  end(): void {
    this.#release?.();
  }

  /** A policy makes room in the cache: neither its capacity nor the model's context ends the generation. */
  get #endless(): boolean {
    return this.#state.native.most !== null;
  }

  #limit(): number {
    const { model } = this.#state;
    if (this.#endless) {
      return this.#decoding.maxNewTokens ?? defaultMaxNewTokens;
    }
    const positions = checkPositions(model, this.#next.length, this.#state.last());
    return budget(model, this.#decoding.maxNewTokens, positions.at(-1) ?? 0);
  }

  #step(sampler: NativeSampler, tokens: Uint32Array, signal: AbortSignal): Promise<Choice> {
    return step(this.#state, sampler, tokens, null, this.#decoding.logits, signal);
  }
}
