import type { NativeSampler } from "../../typings/native.js";
import { type Beginning, type Choice, GenerationRun, type TokenSource } from "../generation/generation.js";
import { budget, type Decoding } from "../generation/options.js";
import { makeSampler } from "../generation/solo.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import type { GenerationEvent, Model, ReusedRows } from "../types.js";
import type { Flow } from "./flow.js";

type DoneEvent = Extract<GenerationEvent, { type: "done" }>;

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
    };
  }

  async step(id: number, signal: AbortSignal): Promise<Choice> {
    if (this.#flow === undefined || this.#sampler === undefined) {
      throw new Error("step before begin");
    }
    return this.#flow.step(this.#sampler, id, this.#decoding.logits, signal);
  }

  /** What the prompt had from earlier turns; undefined before `begin`. */
  get reused(): ReusedRows | undefined {
    return this.#flow?.reused;
  }

  end(): void {
    this.#flow?.discard();
  }
}

/** A generation whose timings say what was reused. */
export class FusedRun extends GenerationRun {
  readonly #source: FusedSource;
  readonly #told = new WeakMap<DoneEvent, DoneEvent>();

  constructor(tokenizer: Tokenizer, checked: Decoding, source: FusedSource) {
    super(tokenizer, checked, source);
    this.#source = source;
  }

  override [Symbol.asyncIterator](): AsyncIterator<GenerationEvent, void> {
    const events = super[Symbol.asyncIterator]();
    return {
      next: async () => {
        const { done, value } = await events.next();
        return done ? { done, value } : { done: false, value: value.type === "done" ? this.#tell(value) : value };
      },
      return: async () => (await events.return?.()) ?? { done: true, value: undefined },
    };
  }

  override async done(): Promise<DoneEvent> {
    const event = await super.done();
    // Nobody asks for what comes after the last event; the caches go back all the same.
    await super[Symbol.asyncDispose]();
    return this.#tell(event);
  }

  #tell(event: DoneEvent): DoneEvent {
    const { reused } = this.#source;
    const told = this.#told.get(event) ?? { ...event, timings: { ...event.timings, ...(reused && { reused }) } };
    this.#told.set(event, told);
    return told;
  }
}
