import { createPrefixStore, type StoreState, storeState } from "../cache/prefix-store.js";
import { C2CError } from "../errors.js";
import type { FuseOrder } from "../fuser/fuse.js";
import { strategies } from "../fuser/fuser.js";
import { fuserState } from "../fuser/state.js";
import { GenerationRun } from "../generation/generation.js";
import { decoding } from "../generation/options.js";
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
  PrefixStore,
} from "../types.js";
import { Flow } from "./flow.js";
import { planPrompt } from "./plan.js";
import { Reuse } from "./reuse.js";
import { FusedSource } from "./run.js";

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
  /** Its own store, or the caller's, or none. */
  readonly #prefixes: { readonly store: StoreState; readonly own: boolean } | undefined;
  #disposed = false;

  constructor(receiver: Model, links: readonly Link[], order: FuseOrder, prefixes: PrefixStore | false | undefined) {
    this.receiver = receiver;
    this.links = links;
    this.#order = order;
    if (prefixes !== false) {
      const own = prefixes === undefined;
      this.#prefixes = { store: storeState(prefixes ?? createPrefixStore()), own };
    }
  }

  async prefill(prompt: ChannelPrompt, options: PrefillOptions = {}): ReturnType<Channel["prefill"]> {
    this.#check();
    const flow = await this.#begin(prompt, options, options.signal);
    try {
      const logits = await flow.prefill(options.signal);
      flow.end();
      return { cache: flow.cache, logits, reports: flow.reports, reused: flow.reused };
    } catch (error) {
      flow.discard();
      throw error;
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
    if (this.#prefixes?.own) {
      void this.#prefixes.store.life.dispose();
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async #begin(prompt: ChannelPrompt, options: EncodeOptions, signal: AbortSignal | undefined): Promise<Flow> {
    signal?.throwIfAborted();
    const plan = await planPrompt(this.receiver, this.links, prompt, options);
    signal?.throwIfAborted();
    this.#check();
    const { receiver, links } = this;
    const reuse = this.#prefixes && new Reuse(this.#prefixes.store, receiver, links, this.#order);
    return new Flow(receiver, links, this.#order, plan, { reuse });
  }

  #check(): void {
    if (this.#disposed) {
      throw new C2CError("DISPOSED", { handle: "channel" }, "this channel is disposed");
    }
    checkAlive(this.receiver, this.links);
    this.#prefixes?.store.life.check();
  }
}

function checkAlive(receiver: Model, links: readonly Link[]): void {
  modelState(receiver, "receiver").life.check();
  for (const [i, { sharer, fuser }] of links.entries()) {
    modelState(sharer, `links[${i}].sharer`).life.check();
    fuserState(fuser, `links[${i}].fuser`).life.check();
  }
}

/**
 * Connects a receiver to sharers, each through a fuser that was loaded for the two. The channel owns none of them; its `dispose`
 * ends the channel alone, and gives back the prefixes that it kept for the next turn. OPTION_INVALID for a fuser of another pair, DISPOSED.
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
  const channel = new CacheChannel(receiver, kept, order, options.prefixes);
  orders.set(channel, order);
  return channel;
}
