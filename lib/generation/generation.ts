import { C2CError } from "../errors.js";
import { tokenId } from "../model/tokens.js";
import { shareCancel } from "../native.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import type { Generation, GenerationEvent, ReusedRows, StopReason, Timings } from "../types.js";
import type { Decoding } from "./options.js";
import { Writer } from "./writer.js";

type TokenEvent = Extract<GenerationEvent, { type: "token" }>;
type DoneEvent = Extract<GenerationEvent, { type: "done" }>;

/** A token and, where asked for, the logits that it was chosen from. */
export interface Choice {
  readonly id: number;
  readonly logits: Float32Array | null;
}

/** What came before the first token. `limit`: tokens that may be generated. */
export interface Beginning extends Choice {
  readonly limit: number;
  readonly promptTokens: number;
  readonly prefillMs: number;
  readonly sharerMs: number;
  readonly fuseMs: number;
  /** What the prompt had from earlier turns, where caches are kept. */
  readonly reused?: ReusedRows;
}

/** Where a generation takes its tokens from. */
export interface TokenSource {
  begin(signal: AbortSignal): Promise<Beginning>;
  /** Appends `id` to the caches and chooses the token after it. */
  step(id: number, signal: AbortSignal): Promise<Choice>;
  /** Gives back what `begin` took; called once, also after failures. */
  end(): void;
}

/** One answer being generated. Nothing runs until an event is asked for. */
export class GenerationRun implements Generation {
  readonly #tokenizer: Tokenizer;
  readonly #decoding: Decoding;
  readonly #source: TokenSource;
  readonly #abort = new AbortController();
  readonly #called = performance.now();
  readonly #events: AsyncGenerator<GenerationEvent, void>;
  readonly #iterator: AsyncIterator<GenerationEvent, void>;
  #cancelled = false;
  #ended = false;
  #done: DoneEvent | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(tokenizer: Tokenizer, decoding: Decoding, source: TokenSource) {
    this.#tokenizer = tokenizer;
    this.#decoding = decoding;
    this.#source = source;
    this.#events = this.#run();
    this.#iterator = {
      next: () => this.#events.next(),
      return: async () => {
        await this.#cancel();
        return { done: true, value: undefined };
      },
    };
  }

  /** The events, once: every iterator of a generation goes on where the last one stopped. */
  [Symbol.asyncIterator](): AsyncIterator<GenerationEvent, void> {
    return this.#iterator;
  }

  async text(): Promise<string> {
    return (await this.done()).text;
  }

  async done(): Promise<DoneEvent> {
    for (;;) {
      if (this.#done !== undefined) {
        return this.#done;
      }
      if (this.#failure !== undefined) {
        throw this.#failure.error;
      }
      if (this.#cancelled) {
        throw new C2CError("DISPOSED", { handle: "generation" }, "this generation was ended before it was done");
      }
      await this.#events.next();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cancel();
  }

  async #cancel(): Promise<void> {
    if (this.#done === undefined && this.#failure === undefined) {
      this.#cancelled = true;
      this.#abort.abort();
    }
    await this.#events.return();
  }

  // One generator: what is yielded through a second one costs each event another round of promises.
  async *#run(): AsyncGenerator<GenerationEvent, void> {
    const { signal: given } = this.#decoding;
    const forward = () => this.#abort.abort(given?.reason);
    const { signal } = this.#abort;
    try {
      if (this.#cancelled) {
        return;
      }
      given?.throwIfAborted();
      given?.addEventListener("abort", forward, { once: true });
      shareCancel(signal);
      const writer = new Writer(this.#tokenizer, this.#decoding.stop);
      const beginning = await this.#source.begin(signal);
      const firstTokenMs = performance.now() - this.#called;
      let decodeMs = 0;
      let choice: Choice = beginning;
      let reason: StopReason | undefined;
      while (reason === undefined) {
        const taken = this.#take(writer, choice, beginning.limit);
        for (const event of taken.events) {
          yield event;
          signal.throwIfAborted();
        }
        ({ reason } = taken);
        if (reason === undefined) {
          const start = performance.now();
          choice = await this.#source.step(choice.id, signal);
          decodeMs += performance.now() - start;
        }
      }
      // Whoever hears that it is done may use the cache.
      this.#end();
      this.#done = done(writer, reason, beginning, firstTokenMs, decodeMs);
      yield this.#done;
    } catch (error) {
      if (!this.#cancelled) {
        this.#failure = { error };
        throw error;
      }
    } finally {
      given?.removeEventListener("abort", forward);
      this.#end();
    }
  }

  /** The events that a choice makes ready, and why it is the last. */
  #take(writer: Writer, { id, logits }: Choice, limit: number): { events: readonly TokenEvent[]; reason?: StopReason } {
    if (this.#decoding.eos.has(id)) {
      const { events, match } = writer.end();
      return { events, reason: match === null ? { kind: "eos", token: tokenId(id) } : { kind: "stop", match } };
    }
    const { events, match } = writer.push(id, logits);
    if (match !== null) {
      return { events, reason: { kind: "stop", match } };
    }
    if (writer.count < limit) {
      return { events };
    }
    const rest = writer.end();
    const reason: StopReason = rest.match === null ? { kind: "length" } : { kind: "stop", match: rest.match };
    return { events: [...events, ...rest.events], reason };
  }

  #end(): void {
    if (!this.#ended) {
      this.#ended = true;
      this.#source.end();
    }
  }
}

function done(
  writer: Writer,
  reason: StopReason,
  { promptTokens, prefillMs, sharerMs, fuseMs, reused }: Beginning,
  firstTokenMs: number,
  decodeMs: number,
): DoneEvent {
  const spent = { prefillMs, sharerMs, fuseMs, firstTokenMs, decodeMs };
  const timings: Timings = { ...spent, promptTokens, newTokens: writer.count, ...(reused && { reused }) };
  return { type: "done", text: writer.text, reason, timings };
}
