import { cacheState } from "../cache/cache.js";
import { C2CError } from "../errors.js";
import { type Beginning, type Choice, GenerationRun, type TokenSource } from "../generation/generation.js";
import { type Decoding, decoding } from "../generation/options.js";
import { SoloSource } from "../generation/solo.js";
import { toMessages } from "../model/model.js";
import { modelState } from "../model/state.js";
import { checkTokens } from "../model/tokens.js";
import { integer, invalid } from "../options.js";
import type {
  Channel,
  ChannelPrompt,
  EncodeOptions,
  GenerateOptions,
  Generation,
  KvCache,
  Link,
  Message,
  Model,
  TextOptions,
  Tokens,
} from "../types.js";

/** Longest message of the sharer, in tokens, when nothing else is asked for. */
const defaultMessageTokens = 256;

type PrefillOptions = NonNullable<Parameters<Channel["prefill"]>[1]>;

/** The last user message, and what came before it. */
function question(messages: readonly Message[]): { before: readonly Message[]; last: Message } {
  const index = messages.findLastIndex(({ role }) => role === "user");
  const last = messages[index];
  if (last === undefined) {
    throw invalid("prompt", "must hold a user message");
  }
  return { before: messages.slice(0, index), last };
}

function background({ content }: Message): Message {
  return {
    role: "user",
    content: `Briefly describe the most useful background to solve the problem:\n\n${content}`,
  };
}

function defaultAsk(messages: readonly Message[]): readonly Message[] {
  const { before, last } = question(messages);
  return [...before, background(last)];
}

function defaultCompose(messages: readonly Message[], text: string): readonly Message[] {
  const { before, last } = question(messages);
  return [...before, background(last), { role: "assistant", content: text }, last];
}

/** What a channel by text was made of. */
export interface TextMaking {
  readonly sharer: Model;
  readonly options: TextOptions;
}
const makings = new WeakMap<Channel, TextMaking>();

/** What `connectByText` made a channel of; undefined for any other channel. */
export function textMaking(channel: Channel): TextMaking | undefined {
  return makings.get(channel);
}

class TextChannel implements Channel {
  readonly receiver: Model;
  readonly links: readonly Link[] = [];
  readonly #sharer: Model;
  readonly #ask: (messages: readonly Message[]) => readonly Message[];
  readonly #compose: (messages: readonly Message[], text: string) => readonly Message[];
  readonly #maxMessageTokens: number;
  #disposed = false;

  constructor(receiver: Model, sharer: Model, options: TextOptions) {
    this.receiver = receiver;
    this.#sharer = sharer;
    this.#ask = options.ask ? (messages) => options.ask?.(messages) ?? messages : defaultAsk;
    this.#compose = options.compose
      ? (messages, text) => options.compose?.(messages, text) ?? messages
      : defaultCompose;
    this.#maxMessageTokens = integer("maxMessageTokens", options.maxMessageTokens ?? defaultMessageTokens, 1);
  }

  async prefill(prompt: ChannelPrompt, options: PrefillOptions = {}): ReturnType<Channel["prefill"]> {
    this.#check();
    const { tokens } = await this.#exchange(chat(prompt), options, options.signal);
    const cache = await this.receiver.prefill(this.receiver.tokens(tokens.subarray(0, -1)), options);
    try {
      const last = this.receiver.tokens(tokens.subarray(-1));
      return {
        cache,
        logits: await this.receiver.logits(cache, last, options),
        reports: [],
        reused: { receiver: 0, sharers: [] },
      };
    } catch (error) {
      cache.dispose();
      throw error;
    }
  }

  generate(prompt: ChannelPrompt, options: GenerateOptions & EncodeOptions = {}): Generation {
    this.#check();
    const messages = chat(prompt);
    const { tokenizer, eos } = modelState(this.receiver);
    const checked = decoding(this.receiver, eos, options);
    const exchange = (signal: AbortSignal) => {
      this.#check();
      return this.#exchange(messages, options, signal);
    };
    return new GenerationRun(tokenizer, checked, new TextSource(this.receiver, checked, exchange));
  }

  dispose(): void {
    this.#disposed = true;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The sharer writes its message; what the receiver then reads, in tokens, and the time that it took. */
  async #exchange(
    messages: readonly Message[],
    options: EncodeOptions,
    signal: AbortSignal | undefined,
  ): Promise<{ tokens: Tokens; sharerMs: number }> {
    const start = performance.now();
    const asked = await this.#sharer.encode(this.#ask(messages), { thinking: options.thinking ?? false });
    using cache = this.#sharer.cache();
    const limits = { maxNewTokens: this.#maxMessageTokens, ...(signal && { signal }) };
    const text = await this.#sharer.generate(cache, asked.tokens, limits).text();
    const sharerMs = performance.now() - start;
    const { tokens } = await this.receiver.encode(this.#compose(messages, text), options);
    return { tokens, sharerMs };
  }

  #check(): void {
    if (this.#disposed) {
      throw new C2CError("DISPOSED", { handle: "channel" }, "this channel is disposed");
    }
    modelState(this.receiver, "receiver").life.check();
    modelState(this.#sharer, "sharer").life.check();
  }
}

function chat(prompt: ChannelPrompt): readonly Message[] {
  if (typeof prompt === "object" && "tokens" in prompt) {
    throw invalid("prompt", "a channel by text takes a string or messages");
  }
  return toMessages(prompt);
}

/** The receiver's tokens after the sharer's message. */
class TextSource implements TokenSource {
  readonly #receiver: Model;
  readonly #decoding: Decoding;
  readonly #exchange: (signal: AbortSignal) => Promise<{ tokens: Tokens; sharerMs: number }>;
  #cache: KvCache | undefined;
  #solo: SoloSource | undefined;

  constructor(
    receiver: Model,
    checked: Decoding,
    exchange: (signal: AbortSignal) => Promise<{ tokens: Tokens; sharerMs: number }>,
  ) {
    this.#receiver = receiver;
    this.#decoding = checked;
    this.#exchange = exchange;
  }

  async begin(signal: AbortSignal): Promise<Beginning> {
    const { tokens, sharerMs } = await this.#exchange(signal);
    const ids = checkTokens(tokens, modelState(this.#receiver).tokenizer.vocabulary, this.#receiver.shape.vocab);
    this.#cache = this.#receiver.cache({ capacity: Math.max(1, ids.length) });
    this.#solo = new SoloSource(this.#cache, cacheState(this.#cache), ids, this.#decoding);
    return { ...(await this.#solo.begin(signal)), sharerMs };
  }

  async step(id: number, signal: AbortSignal): Promise<Choice> {
    if (this.#solo === undefined) {
      throw new Error("step before begin");
    }
    return this.#solo.step(id, signal);
  }

  end(): void {
    this.#solo?.end();
    this.#cache?.dispose();
  }
}

/**
 * The baseline: the sharer writes a message (greedy), the receiver reads it. By default the sharer is asked for background to the
 * last user message, and the receiver reads that question, the sharer's text as its own answer, then the user's message.
 * TokenPrompts are OPTION_INVALID; `prefill` gives the last token's logits.
 */
export function connectByText(receiver: Model, sharer: Model, options: TextOptions = {}): Channel {
  modelState(receiver, "receiver").life.check();
  modelState(sharer, "sharer").life.check();
  const channel = new TextChannel(receiver, sharer, options);
  makings.set(channel, { sharer, options });
  return channel;
}
