import type { NativeSampler } from "../../typings/native.js";
import type { Beginning, Choice, TokenSource } from "../generation/generation.js";
import { budget, type Decoding } from "../generation/options.js";
import { makeSampler } from "../generation/solo.js";
import type { Model } from "../types.js";
import type { Flow } from "./flow.js";

/** Tokens of a receiver on its fused cache. */
export class FusedSource implements TokenSource {
  readonly #receiver: Model;
  readonly #decoding: Decoding;
  readonly #start: (signal: AbortSignal) => Promise<Flow>;
  #flow: Flow | undefined;
  #sampler: NativeSampler | undefined;

  constructor(receiver: Model, checked: Decoding, start: (signal: AbortSignal) => Promise<Flow>) {
    this.#receiver = receiver;
    this.#decoding = checked;
    this.#start = start;
  }

  async begin(signal: AbortSignal): Promise<Beginning> {
    const flow = await this.#start(signal);
    this.#flow = flow;
    const logits = await flow.prefill(signal);
    const limit = budget(this.#receiver, this.#decoding.maxNewTokens, flow.cache.positions.at(-1) ?? 0);
    const history = new Uint32Array(flow.cache.tokens);
    this.#sampler = makeSampler(this.#decoding, history);
    const row = logits.subarray(logits.length - this.#receiver.shape.vocab);
    const { prefillMs, sharerMs, fuseMs } = flow;
    return {
      id: this.#sampler.pick(row),
      logits: this.#decoding.logits ? row.slice() : null,
      limit,
      promptTokens: history.length,
      prefillMs,
      sharerMs,
      fuseMs,
      reused: flow.reused,
    };
  }

  async step(id: number, signal: AbortSignal): Promise<Choice> {
    if (this.#flow === undefined || this.#sampler === undefined) {
      throw new Error("step before begin");
    }
    return this.#flow.step(this.#sampler, id, this.#decoding.logits, signal);
  }

  end(): void {
    this.#flow?.discard();
  }
}
