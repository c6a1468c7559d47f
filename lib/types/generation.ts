// Types of a generation: how tokens are chosen, what comes back, and how channels are made.
import type { Message, TokenId } from "../types.js";
import type { PrefixStore, ReusedRows } from "./prefixes.js";

/** How the next token is chosen. Penalties come first, then temperature, then the limits. `seed` makes a run repeatable. */
export type Sampling =
  | { readonly kind: "greedy" }
  | {
      readonly kind: "sample";
      readonly temperature: number;
      readonly topP?: number;
      readonly topK?: number;
      readonly minP?: number;
      readonly seed?: bigint;
    };
/** How an answer is generated. OPTION_INVALID for values out of range. */
export interface GenerateOptions {
  /** Default: greedy. */
  readonly sampling?: Sampling;
  /** Most new tokens; default 512, and never past the model's context. */
  readonly maxNewTokens?: number;
  /** The text ends before the first of these. */
  readonly stop?: readonly string[];
  /** End tokens; default: the model's generation_config. [] never stops. */
  readonly eos?: readonly number[];
  /** Token events carry their logits (before penalties). */
  readonly logits?: boolean;
  /** Divides logits of tokens already in the text; 1 is off. */
  readonly repetitionPenalty?: number;
  /** Subtracted once from tokens already in the text; 0 is off. */
  readonly presencePenalty?: number;
  /** Subtracted for every time a token is in the text; 0 is off. */
  readonly frequencyPenalty?: number;
  /** Cancels between layers and tokens; the stream throws its reason. */
  readonly signal?: AbortSignal;
}
/** Why a generation ended: an end token, the length limit, or a stop string. */
export type StopReason =
  | { readonly kind: "eos"; readonly token: TokenId }
  | { readonly kind: "length" }
  | { readonly kind: "stop"; readonly match: string };
/**
 * Times of one generation in milliseconds, and its counts of tokens. Where receiver and sharers lie on one GPU they read side by side,
 * and both count the whole of it; a GPU's work counts where it is waited for, at the latest in `firstTokenMs`.
 */
export interface Timings {
  /** The receiver's prompt. */
  readonly prefillMs: number;
  /** The sharers' prompts, or the sharer's message in a channel by text. */
  readonly sharerMs: number;
  /** All fusions. */
  readonly fuseMs: number;
  /** From the call to the first new token. */
  readonly firstTokenMs: number;
  /** All new tokens after the first. */
  readonly decodeMs: number;
  /** Rows of the receiver before the first new token. */
  readonly promptTokens: number;
  /** Tokens of the text; an end token is not one. */
  readonly newTokens: number;
  /** Rows of the prompt that a channel had from earlier turns; of a channel's generations alone. */
  readonly reused?: ReusedRows;
}
/** A new token with the text that became whole by it (it may be empty), or the end. */
export type GenerationEvent =
  | {
      readonly type: "token";
      readonly id: TokenId;
      readonly text: string;
      readonly index: number;
      readonly logits?: Float32Array;
    }
  | { readonly type: "done"; readonly text: string; readonly reason: StopReason; readonly timings: Timings };
/** A generation under way: read it as a stream, or wait for its end. Leaving the loop early cancels it. Its cache is free again when it is done. */
export interface Generation extends AsyncIterable<GenerationEvent>, AsyncDisposable {
  /** The whole text, once it is there. */
  text(): Promise<string>;
  /** The last event, once it is there. */
  done(): Promise<Extract<GenerationEvent, { type: "done" }>>;
}
/** How a channel joins several sharers. */
export interface ConnectOptions {
  /** What several sharers see of each other; see `fuse`. Default "sequential". */
  readonly order?: "sequential" | "parallel";
  /**
   * Where the caches of earlier turns are kept, so that the next prompt reads and fuses only what is new; the outcome is that of a
   * fresh run. Several channels may have one store; a channel's `dispose` leaves it. Default: one of the channel's own, of 512 MiB.
   * With false nothing is kept.
   */
  readonly prefixes?: PrefixStore | false;
}
/** How a channel by text asks the sharer and shows its answer to the receiver. */
export interface TextOptions {
  /** What the sharer is asked, given the user's messages. */
  ask?(messages: readonly Message[]): readonly Message[];
  /** What the receiver reads, given the user's messages and the sharer's text. */
  compose?(messages: readonly Message[], text: string): readonly Message[];
  /** Length limit of the sharer's message in tokens; default 256. */
  readonly maxMessageTokens?: number;
}
