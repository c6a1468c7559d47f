/** The public types of cache-to-cache. Token counts are in tokens, times in milliseconds, sizes in bytes. */
import type { CacheOptions, KvCache } from "./types/cache.js";
import type { GenerateOptions, Generation } from "./types/generation.js";
import type { ReusedRows } from "./types/prefixes.js";
import type { FuserKind } from "./types/training.js";

export type * from "./types/cache.js";
export type * from "./types/evaluation.js";
export type * from "./types/generation.js";
export type * from "./types/prefixes.js";
export type * from "./types/training.js";

declare const brand: unique symbol;
/** An id of one model's vocabulary. */
export type TokenId = number & { readonly [brand]: "TokenId" };
/**
 * Token ids. Arrays made by a model (`encode`, `tokens`) remember its vocabulary and are refused by a model with another one
 * (TOKENS_FOREIGN); any other Uint32Array is checked for range only (OPTION_INVALID).
 */
export type Tokens = Readonly<Uint32Array> & { readonly [brand]: "Tokens" };

// ── where things come from, where they run ────────────────────────────────────────────────────────────────────────
/** Where a model or fuser comes from: a folder, or a repository on the Hugging Face hub (`revision` defaults to "main", `folder` to its root). */
export type Source =
  | { readonly kind: "hub"; readonly repo: `${string}/${string}`; readonly revision?: string; readonly folder?: string }
  | { readonly kind: "folder"; readonly path: string };
/** Where tensors live: the CPU, or an NVIDIA GPU by its number, for which a libtorch for CUDA is needed (`setup --variant cu130`). */
export type Device = { readonly kind: "cpu" } | { readonly kind: "cuda"; readonly index: number };
/** Number formats of weights. */
export type DType = "float32" | "bfloat16" | "float16";
/** Progress of loading: bytes of a file that is fetched, or tensors that are in memory. */
export type LoadEvent =
  | { readonly phase: "download"; readonly file: string; readonly bytes: number; readonly total: number }
  | { readonly phase: "weights"; readonly tensors: number; readonly of: number };
/** How a model or fuser is loaded. */
export interface LoadOptions {
  /** Default: the CPU for a model, the receiver's device for a fuser. UNSUPPORTED where it is not there; training runs on the CPU alone. */
  readonly device?: Device;
  /** Default: what the files hold, except float16, which becomes bfloat16. */
  readonly dtype?: DType;
  /** Models alone: weights in 8 or 4 bits, with a scale for every 32 inputs of an output. Default: weights as they are. */
  readonly quantize?: "int8" | "int4";
  /** Stops loading; the promise rejects with its reason. */
  readonly signal?: AbortSignal;
  /** Hears of files and tensors as they come. */
  onProgress?(event: LoadEvent): void;
}

// ── models and prompts ────────────────────────────────────────────────────────────────────────────────────────────
/** One turn of a conversation. */
export interface Message {
  /** Who speaks. */
  readonly role: "system" | "user" | "assistant";
  /** What is said, without template. */
  readonly content: string;
}
/** Sizes of a decoder; `hidden`, `headDim` and `vocab` in values, `context` in positions. */
export interface ModelShape {
  /** The decoder family, e.g. "qwen3". */
  readonly family: string;
  /** Decoder layers. */
  readonly layers: number;
  /** Width of the residual stream. */
  readonly hidden: number;
  /** Query heads of a layer. */
  readonly heads: number;
  /** Key and value heads of a layer; `heads` is a multiple. */
  readonly kvHeads: number;
  /** Values of a head. */
  readonly headDim: number;
  /** Rows of the embedding. */
  readonly vocab: number;
  /** Positions the model was made for. */
  readonly context: number;
}
/** A tokenised prompt. `spans` mark, in token positions, what came from which message; the rest is template. */
export interface Prompt {
  /** The whole prompt, template included. */
  readonly text: string;
  /** The same in tokens. */
  readonly tokens: Tokens;
  /** What went into it. */
  readonly messages: readonly Message[];
  /** Where each message's content lies, in token positions. */
  readonly spans: readonly { readonly message: number; readonly start: number; readonly end: number }[];
}
/** How messages become a prompt. */
export interface EncodeOptions {
  /** Whether the model may think first, where its template knows that; default false. */
  readonly thinking?: boolean;
  /** Whether the prompt ends with what begins an answer; default true. */
  readonly generationPrompt?: boolean;
  /** The last message is an answer begun, its text is left open; default false. */
  readonly continueLast?: boolean;
}
/** A loaded model. It keeps its weights until `dispose`; every call after that is DISPOSED. */
export interface Model extends AsyncDisposable {
  /** The repository's name, or the folder's path. */
  readonly id: string;
  /** Its sizes. */
  readonly shape: ModelShape;
  /** Where its weights are, and its caches. */
  readonly device: Device;
  /** What it computes in. */
  readonly dtype: DType;
  /** Bytes of its weights. */
  readonly bytes: number;
  /** True after `dispose`. */
  readonly disposed: boolean;
  /** Messages go through the chat template. A string is one user message. (`tokens` and `encodeText` are for raw input.) */
  encode(prompt: string | readonly Message[], options?: EncodeOptions): Promise<Prompt>;
  /** The text as it is: no template, no special tokens added. */
  encodeText(text: string): Promise<Tokens>;
  /** Ids as they are, marked as this vocabulary's; out of range is OPTION_INVALID. The explicit way to feed foreign ids. */
  tokens(ids: Iterable<number>): Tokens;
  /** Text of tokens. `skipSpecial` leaves special tokens out; default false. */
  decodeTokens(tokens: Iterable<number>, options?: { readonly skipSpecial?: boolean }): string;
  /** An empty cache: one that grows, is fixed, or has a policy that makes room. */
  cache(options?: CacheOptions): KvCache;
  /** Appends the tokens' keys and values to a new cache, or to `into`; `from` reuses the rows it has in common with the tokens from the first on, tokens and positions both equal (`reused` says how many), as they are, and is left as it is. `positions` default to what follows the cache's last. CACHE_FOREIGN, CACHE_BUSY, CACHE_FULL. */
  prefill(
    tokens: Tokens,
    options?: {
      readonly into?: KvCache;
      readonly from?: KvCache;
      readonly positions?: Uint32Array;
      readonly signal?: AbortSignal;
    },
  ): Promise<KvCache>;
  /** Appends the tokens and returns their logits, [tokens.length, vocab] float32, row-major. */
  logits(
    cache: KvCache,
    tokens: Tokens,
    options?: { readonly positions?: Uint32Array; readonly signal?: AbortSignal },
  ): Promise<Float32Array>;
  /** Appends `next` (one token or more, usually the prompt's last) to the cache and continues from there. Several may run at once, each on its own cache. */
  generate(cache: KvCache, next: Tokens, options?: GenerateOptions): Generation;
  /** Gives its memory back once work under way is done. A second call does nothing. */
  dispose(): Promise<void>;
}

// ── the fuser ─────────────────────────────────────────────────────────────────────────────────────────────────────
/** The two models that a fuser was trained for. */
export interface Pair {
  /** The model that answers. */
  readonly receiver: Model;
  /** The model whose cache is used. */
  readonly sharer: Model;
}
/** How tokens of one vocabulary are read in another: "same" (one vocabulary), "first" or "longest" of several candidates (as the reference does), "bytes" (by byte ranges of the text). */
export type AlignStrategy = "same" | "first" | "longest" | "bytes";
/**
 * How a prompt is read by both models. Message rows pair one to one; template rows may differ in number, so each side has its own
 * tokens and positions (a template part takes as many positions as its longest reading among all models: message rows then have
 * the same position everywhere). There are no pads.
 */
export interface Alignment {
  /** How tokens were aligned. */
  readonly strategy: AlignStrategy;
  /** What the receiver reads. */
  readonly receiver: { readonly tokens: Tokens; readonly positions: Uint32Array };
  /** What the sharer reads. */
  readonly sharer: { readonly tokens: Tokens; readonly positions: Uint32Array };
  /** Row ranges of equal length that are fused; the prompt's last token is in none. */
  readonly fused: readonly SpanPair[];
  /** Share of message tokens that map one to one. */
  readonly oneToOne: number;
}
/** Rows from `start` up to, but not including, `end`. */
export interface Span {
  /** The first row. */
  readonly start: number;
  /** The row behind the last. */
  readonly end: number;
}
/** Rows of the receiver and the sharer's rows that belong to them, one to one. */
export interface SpanPair {
  /** The receiver's rows. */
  readonly receiver: Span;
  /** As many of the sharer. */
  readonly sharer: Span;
}
/** Gate logits; open when > 0; null where the projector kind has none. `keyWeight`, `valueWeight`: mean weight over fused rows and heads, 0 to 1. */
export interface GateReport {
  /** Receiver layer, from 0. */
  readonly layer: number;
  /** Keys were written. */
  readonly key: boolean;
  /** Values were written. */
  readonly value: boolean;
  /** Mean weight of the keys' write, 0 to 1. */
  readonly keyWeight: number;
  /** Mean weight of the values' write, 0 to 1. */
  readonly valueWeight: number;
}
/** What one contribution wrote: into how many `positions`, through which gates, in how many milliseconds. */
export interface FuseReport {
  /** Receiver rows that were written to. */
  readonly positions: number;
  /** One entry for each layer that the fuser maps. */
  readonly gates: readonly GateReport[];
  /** Milliseconds. */
  readonly ms: number;
}
/** A trained fuser between two models. Disposing it leaves the models as they are. */
export interface Fuser extends AsyncDisposable {
  /** What it was loaded for. */
  readonly pair: Pair;
  /** Which of the reference's projectors it is made of. */
  readonly kind: FuserKind;
  /** Sharer layer for each receiver layer, or null where nothing is fused. */
  readonly layerMap: readonly (number | null)[];
  /** Learned gate logits of each layer's keys and values; open above 0, null where there is none. */
  readonly gates: readonly { readonly key: number | null; readonly value: number | null }[];
  /** Where its weights are: with the receiver. A sharer's rows are brought there from wherever they lie. */
  readonly device: Device;
  /** Bytes of its weights. */
  readonly bytes: number;
  /** How a prompt of the receiver is read by both. TOKENS_FOREIGN where the strategy cannot map them. */
  align(prompt: Prompt, options?: { readonly strategy?: AlignStrategy }): Promise<Alignment>;
  /** Writes a folder that `loadFuser` reads, or that the reference reads. */
  save(folder: string, options?: { readonly format?: "native" | "reference" }): Promise<void>;
  /** Gives its memory back. A second call does nothing. */
  dispose(): Promise<void>;
}
/** One sharer's share in a fusion. `spans` default to all rows but the last, equal on both sides. */
export interface Contribution {
  /** The fuser between the two. */
  readonly fuser: Fuser;
  /** The sharer's cache; it is read only. */
  readonly sharer: KvCache;
  /** Which rows are fused. */
  readonly spans?: readonly SpanPair[];
}
// ── the channel: the whole flow ───────────────────────────────────────────────────────────────────────────────────
/** `align` defaults to what the fuser was trained with. */
export interface Link {
  /** The model whose cache is used. */
  readonly sharer: Model;
  /** A fuser loaded for the channel's receiver and this sharer. */
  readonly fuser: Fuser;
  /** How tokens are aligned; default: as the fuser was trained. */
  readonly align?: AlignStrategy;
  /** What is fused: the prompt (default), or new tokens too. */
  readonly span?: "prompt" | "prompt-and-response";
}
/** A run of the receiver's tokens and the links (indices) that are fused there. The last section is never fused; sections are prefilled and fused one after another. */
export interface Section {
  /** Rows of this section. */
  readonly length: number;
  /** Indices of the links that are fused here. */
  readonly links: readonly number[];
}
/** A prompt in tokens, for those who do their own templates and alignment. Sections default to [all but one: every link], [one: none]. */
export interface TokenPrompt {
  /** The receiver's tokens. */
  readonly tokens: Tokens;
  /** Their positions; default 0, 1, 2, … */
  readonly positions?: Uint32Array;
  /** What is fused where; lengths add up to all tokens. */
  readonly sections?: readonly Section[];
  /** What each link's sharer reads, and which of its rows belong to which of the receiver's; default: the receiver's tokens, row for row. */
  readonly sharers?: readonly {
    readonly tokens: Tokens;
    readonly positions?: Uint32Array;
    readonly rows?: readonly SpanPair[];
  }[];
}
/** A text (one user message), messages, or tokens with a plan of one's own. */
export type ChannelPrompt = string | readonly Message[] | TokenPrompt;
/** A receiver connected to its sharers. Disposing it leaves models and fusers as they are. */
export interface Channel extends Disposable {
  /** Empty for a channel by text. */
  readonly receiver: Model;
  /** Its sharers, in order. */
  readonly links: readonly Link[];
  /** Everything before the first new token: the fused receiver cache, and the last section's logits [its length, vocab]. */
  prefill(
    prompt: ChannelPrompt,
    options?: EncodeOptions & { readonly signal?: AbortSignal },
  ): Promise<{
    readonly cache: KvCache;
    readonly logits: Float32Array;
    /** What each link wrote, earlier turns' rows that were reused included (`ms` is of now; of a part of them, their mean weights). */
    readonly reports: readonly FuseReport[];
    /** Rows that earlier turns had. */
    readonly reused: ReusedRows;
  }>;
  /** Prefill, fusion and decoding as one stream. */
  generate(prompt: ChannelPrompt, options?: GenerateOptions & EncodeOptions): Generation;
  /** Ends it. A second call does nothing. */
  dispose(): void;
}
