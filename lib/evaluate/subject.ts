import { connectByText, textMaking } from "../channel/by-text.js";
import { channelOrder } from "../channel/connect.js";
import { Flow, type Tamper } from "../channel/flow.js";
import { type Plan, planPrompt } from "../channel/plan.js";
import { withResponse } from "../channel/response.js";
import { FusedSource } from "../channel/run.js";
import { GenerationRun } from "../generation/generation.js";
import { decoding } from "../generation/options.js";
import { modelState } from "../model/state.js";
import { checkTokens } from "../model/tokens.js";
import { invalid } from "../options.js";
import type { Channel, Generation, Message, Model, Question, TextOptions, Timings, Tokens } from "../types.js";

/** A whole answer, or the logits of one token, [vocab]. */
export interface Reply {
  readonly text: string;
  readonly timings: Timings;
}
export interface NextToken {
  readonly logits: Float32Array;
  readonly timings: Timings;
}

/** Anything that questions can be put to. Several may be asked at once; their steps share batches. */
export interface Subject {
  /** The model whose words are heard. */
  readonly model: Model;
  /** A greedy answer. */
  reply(question: Question, maxNewTokens: number, signal: AbortSignal): Promise<Reply>;
  /** The logits after the prompt and `response`, the beginning of an answer. */
  next(question: Question, response: string, signal: AbortSignal): Promise<NextToken>;
}

/** What a control changes: the plan of a question before it is read, and the sharers' caches once they are. */
export interface Control {
  plan?(plan: Plan, question: Question, response: Uint32Array | null): Promise<Plan>;
  tamper?(question: Question, plan: Plan): Tamper;
}

/** The subject behind a model or a channel. OPTION_INVALID for what this package did not make. */
export function subjectOf(subject: Model | Channel): Subject {
  if (!("receiver" in subject)) {
    modelState(subject, "subject").life.check();
    return new Alone(subject);
  }
  if (textMaking(subject)) return new ByText(subject);
  if (channelOrder(subject) === undefined)
    throw invalid("subject", "must be a model or a channel made by this package");
  return new Fused(subject);
}

/** A channel's subject under a control. */
export function controlled(channel: Channel, control: Control): Subject {
  return new Fused(channel, control);
}

class Alone implements Subject {
  readonly model: Model;

  constructor(model: Model) {
    this.model = model;
  }

  async reply(question: Question, maxNewTokens: number, signal: AbortSignal): Promise<Reply> {
    const started = performance.now();
    const { tokens } = await this.model.encode(question.messages);
    using cache = this.model.cache({ capacity: tokens.length + 1 });
    return await finish(this.model.generate(cache, tokens, { maxNewTokens, signal }), started);
  }

  async next(question: Question, response: string, signal: AbortSignal): Promise<NextToken> {
    const started = performance.now();
    const { tokens } = await this.model.encode(question.messages);
    const all = joined(this.model, tokens, await this.model.encodeText(response));
    using cache = await this.model.prefill(this.model.tokens(all.subarray(0, -1)), { signal });
    const logits = await this.model.logits(cache, this.model.tokens(all.subarray(-1)), { signal });
    return { logits, timings: atOnce(performance.now() - started, all.length) };
  }
}

class Fused implements Subject {
  readonly model: Model;
  readonly #channel: Channel;
  readonly #control: Control;

  constructor(channel: Channel, control: Control = {}) {
    this.model = channel.receiver;
    this.#channel = channel;
    this.#control = control;
  }

  async reply(question: Question, maxNewTokens: number, signal: AbortSignal): Promise<Reply> {
    const started = performance.now();
    const { tokenizer, eos } = modelState(this.model);
    const checked = decoding(this.model, eos, { maxNewTokens, signal });
    const source = new FusedSource(this.model, checked, () => this.#flow(question, null));
    return await finish(new GenerationRun(tokenizer, checked, source), started);
  }

  async next(question: Question, response: string, signal: AbortSignal): Promise<NextToken> {
    const started = performance.now();
    const flow = await this.#flow(question, await this.model.encodeText(response));
    try {
      const logits = await flow.prefill(signal);
      const { prefillMs, sharerMs, fuseMs } = flow;
      const timings = { ...atOnce(performance.now() - started, flow.cache.length), prefillMs, sharerMs, fuseMs };
      return { logits: logits.slice(logits.length - this.model.shape.vocab), timings };
    } finally {
      flow.end();
      flow.cache.dispose();
    }
  }

  async #flow(question: Question, response: Tokens | null): Promise<Flow> {
    const { links } = this.#channel;
    const plan = await planOf(this.#channel, question.messages, response);
    const changed = (await this.#control.plan?.(plan, question, response)) ?? plan;
    const tamper = this.#control.tamper?.(question, changed);
    return new Flow(this.model, links, channelOrder(this.#channel) ?? "sequential", changed, { tamper });
  }
}

/** A prompt as a channel reads it, with or without the beginning of an answer. */
export async function planOf(
  channel: Channel,
  messages: readonly Message[],
  response: Uint32Array | null,
): Promise<Plan> {
  const { receiver, links } = channel;
  const plan = await planPrompt(receiver, links, messages, {});
  if (response === null) return plan;
  const ids = checkTokens(receiver.tokens(response), modelState(receiver).tokenizer.vocabulary, receiver.shape.vocab);
  return await withResponse(receiver, links, plan, ids);
}

class ByText implements Subject {
  readonly model: Model;
  readonly #channel: Channel;

  constructor(channel: Channel) {
    this.model = channel.receiver;
    this.#channel = channel;
  }

  async reply(question: Question, maxNewTokens: number, signal: AbortSignal): Promise<Reply> {
    const started = performance.now();
    using channel = this.#asking(question);
    return await finish(channel.generate(question.messages, { maxNewTokens, signal }), started);
  }

  async next(question: Question, response: string, signal: AbortSignal): Promise<NextToken> {
    const started = performance.now();
    using channel = this.#asking(question);
    const read = await channel.prefill(question.messages, { signal });
    using cache = read.cache;
    const tokens = await this.model.encodeText(response);
    const logits = await this.model.logits(cache, tokens, { signal });
    const timings = atOnce(performance.now() - started, cache.length);
    return { logits: logits.slice(logits.length - this.model.shape.vocab), timings };
  }

  /** The channel, asking the sharer what the question says where the channel itself was not told what to ask. */
  #asking({ ask }: Question): Channel {
    const making = textMaking(this.#channel);
    if (!making) throw invalid("subject", "is not a channel by text");
    const { sharer, options } = making;
    if (ask === undefined || options.ask) return connectByText(this.model, sharer, options);
    const asked: Message = { role: "user", content: ask };
    const compose: TextOptions["compose"] = (messages, text) => {
      if (options.compose) return options.compose(messages, text);
      return [...messages.slice(0, -1), asked, { role: "assistant", content: text }, ...messages.slice(-1)];
    };
    return connectByText(this.model, sharer, { ...options, ask: () => [asked], compose });
  }
}

/** A generation to its end; its first token's time counts from `started`, before the prompt was read. */
async function finish(generation: Generation, started: number): Promise<Reply> {
  let firstTokenMs: number | null = null;
  for await (const event of generation) {
    firstTokenMs ??= performance.now() - started;
    if (event.type === "done") return { text: event.text, timings: { ...event.timings, firstTokenMs } };
  }
  throw new Error("a generation ended without its last event");
}

function atOnce(ms: number, promptTokens: number): Timings {
  return { prefillMs: ms, sharerMs: 0, fuseMs: 0, firstTokenMs: ms, decodeMs: 0, promptTokens, newTokens: 0 };
}

function joined(model: Model, first: Tokens, second: Tokens): Tokens {
  return model.tokens([...first, ...second]);
}
