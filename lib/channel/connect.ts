import type { NativeSampler } from "../../typings/native.js";
import { C2CError } from "../errors.js";
import type { FuseOrder } from "../fuser/fuse.js";
import { strategies } from "../fuser/fuser.js";
import { fuserState } from "../fuser/state.js";
import { type Beginning, type Choice, GenerationRun, type TokenSource } from "../generation/generation.js";
import { budget, type Decoding, decoding } from "../generation/options.js";
import { makeSampler } from "../generation/solo.js";
import { modelState } from "../model/state.js";
import { choice, invalid } from "../options.js";
import type {
  Channel,
  ChannelPrompt,
  ConnectOptions,
  EncodeOptions,
  GenerateOptions,
  Generation,
  Link,
  Model,
} from "../types.js";
import { Flow } from "./flow.js";
import { planPrompt } from "./plan.js";

type PrefillOptions = NonNullable<Parameters<Channel["prefill"]>[1]>;

const orders = new WeakMap<Channel, FuseOrder>();

/** The order of a channel made by `connect`; undefined for any other. */
export function channelOrder(channel: Channel): FuseOrder | undefined {
  return orders.get(channel);
}

class CacheChannel implements Channel {
  readonly receiver: Model;
  readonly links: readonly Link[];
  readonly #order: FuseOrder;
  #disposed = false;

  constructor(receiver: Model, links: readonly Link[], order: FuseOrder) {
    this.receiver = receiver;
    this.links = links;
    this.#order = order;
  }

  async prefill(prompt: ChannelPrompt, options: PrefillOptions = {}): ReturnType<Channel["prefill"]> {
    this.#check();
    const flow = await this.#begin(prompt, options, options.signal);
    try {
      const logits = await flow.prefill(options.signal);
      return { cache: flow.cache, logits, reports: flow.reports };
    } catch (error) {
      flow.cache.dispose();
      throw error;
    } finally {
      flow.end();
    }
  }

  generate(prompt: ChannelPrompt, options: GenerateOptions & EncodeOptions = {}): Generation {
    this.#check();
    const { tokenizer, eos } = modelState(this.receiver);
    const checked = decoding(this.receiver, eos, options);
    const begin = (signal: AbortSignal) => {
      this.#check();
      return this.#begin(prompt, options, signal);
    };
    return new GenerationRun(tokenizer, checked, new FusedSource(this.receiver, checked, begin));
  }

  dispose(): void {
    this.#disposed = true;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async #begin(prompt: ChannelPrompt, options: EncodeOptions, signal: AbortSignal | undefined): Promise<Flow> {
    signal?.throwIfAborted();
    const plan = await planPrompt(this.receiver, this.links, prompt, options);
    signal?.throwIfAborted();
    return new Flow(this.receiver, this.links, this.#order, plan);
  }

  #check(): void {
    if (this.#disposed) {
      throw new C2CError("DISPOSED", { handle: "channel" }, "this channel is disposed");
    }
    checkAlive(this.receiver, this.links);
  }
}

function checkAlive(receiver: Model, links: readonly Link[]): void {
  modelState(receiver, "receiver").life.check();
  for (const [i, { sharer, fuser }] of links.entries()) {
    modelState(sharer, `links[${i}].sharer`).life.check();
    fuserState(fuser, `links[${i}].fuser`).life.check();
  }
}

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

  end(): void {
    this.#flow?.end();
    this.#flow?.cache.dispose();
  }
}

/**
 * Connects a receiver to sharers, each through a fuser that was loaded for the two. The channel owns none of them; its `dispose`
 * ends the channel alone. OPTION_INVALID for a fuser of another pair, DISPOSED.
 */
export function connect(receiver: Model, links: readonly Link[], options: ConnectOptions = {}): Channel {
  const order = choice("order", options.order ?? "sequential", ["sequential", "parallel"]);
  const kept = links.map((link, i): Link => {
    const { pair } = link.fuser;
    if (pair.receiver !== receiver || pair.sharer !== link.sharer) {
      throw invalid(`links[${i}].fuser`, "was loaded for another receiver or sharer");
    }
    if (link.align !== undefined) {
      choice(`links[${i}].align`, link.align, strategies);
    }
    choice(`links[${i}].span`, link.span ?? "prompt", ["prompt", "prompt-and-response"]);
    return { ...link };
  });
  checkAlive(receiver, kept);
  const channel = new CacheChannel(receiver, kept, order);
  orders.set(channel, order);
  return channel;
}
