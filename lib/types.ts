/** The public types of cache-to-cache. Token counts are in tokens, times in milliseconds, sizes in bytes. */
declare const brand: unique symbol;
export type TokenId = number & { readonly [brand]: "TokenId" };
/**
 * Token ids. Arrays made by a model (`encode`, `tokens`) remember its vocabulary and are refused by a model with another one
 * (TOKENS_FOREIGN); any other Uint32Array is checked for range only (OPTION_INVALID).
 */
export type Tokens = Readonly<Uint32Array> & { readonly [brand]: "Tokens" };

// ── where things come from, where they run ────────────────────────────────────────────────────────────────────────
export type Source =
  | { readonly kind: "hub"; readonly repo: `${string}/${string}`; readonly revision?: string; readonly folder?: string }
  | { readonly kind: "folder"; readonly path: string };
export type Device = { readonly kind: "cpu" } | { readonly kind: "cuda"; readonly index: number };
export type DType = "float32" | "bfloat16" | "float16";
export type LoadEvent =
  | { readonly phase: "download"; readonly file: string; readonly bytes: number; readonly total: number }
  | { readonly phase: "weights"; readonly tensors: number; readonly of: number };
export interface LoadOptions {
  readonly device?: Device;
  /** Default: what the files hold, except float16 on CPU, which becomes bfloat16. */
  readonly dtype?: DType;
  readonly quantize?: "int8" | "int4";
  readonly signal?: AbortSignal;
  onProgress?(event: LoadEvent): void;
}

// ── models and prompts ────────────────────────────────────────────────────────────────────────────────────────────
export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}
export interface ModelShape {
  readonly family: string;
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocab: number;
  readonly context: number;
}
/** A tokenised prompt. `spans` mark, in token positions, what came from which message; the rest is template. */
export interface Prompt {
  readonly text: string;
  readonly tokens: Tokens;
  readonly messages: readonly Message[];
  readonly spans: readonly { readonly message: number; readonly start: number; readonly end: number }[];
}
/** `generationPrompt` defaults to true. `continueLast`: the last message is an answer begun, its text is left open. */
export interface EncodeOptions {
  readonly thinking?: boolean;
  readonly generationPrompt?: boolean;
  readonly continueLast?: boolean;
}
export interface Model extends AsyncDisposable {
  readonly id: string;
  readonly shape: ModelShape;
  readonly device: Device;
  readonly dtype: DType;
  readonly bytes: number;
  readonly disposed: boolean;
  /** Messages go through the chat template. A string is one user message. (`tokens` and `encodeText` are for raw input.) */
  encode(prompt: string | readonly Message[], options?: EncodeOptions): Promise<Prompt>;
  /** The text as it is: no template, no special tokens added. */
  encodeText(text: string): Promise<Tokens>;
  /** Ids as they are, marked as this vocabulary's; out of range is OPTION_INVALID. The explicit way to feed foreign ids. */
  tokens(ids: Iterable<number>): Tokens;
  decodeTokens(tokens: Iterable<number>, options?: { readonly skipSpecial?: boolean }): string;
  /** An empty cache. Default: grows by doubling; with `grow: false` an append past `capacity` is CACHE_FULL. */
  cache(options?: { readonly capacity?: number; readonly grow?: boolean }): KvCache;
  /** Appends the tokens' keys and values to a new cache, or to `into`; `from` reuses its longest common prefix. `positions` default to what follows the cache's last. */
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
  dispose(): Promise<void>;
}

// ── the cache: a value ────────────────────────────────────────────────────────────────────────────────────────────
export interface KvCache extends Disposable {
  readonly model: Model;
  readonly tokens: Tokens;
  readonly positions: Uint32Array;
  readonly length: number;
  readonly capacity: number;
  readonly bytes: number;
  readonly disposed: boolean;
  /** How many leading positions were reused when this cache was made with `from`. */
  readonly reused: number;
  fork(): KvCache;
  truncate(length: number): void;
  /** A copy, [positions, kvHeads, headDim], in float32. Keys are rotated (post-RoPE), as models store them. */
  read(layer: number, part: "key" | "value", range?: { readonly start: number; readonly end: number }): Float32Array;
  write(layer: number, part: "key" | "value", start: number, data: Float32Array): void;
  dispose(): void;
}

// ── the fuser ─────────────────────────────────────────────────────────────────────────────────────────────────────
export interface Pair {
  readonly receiver: Model;
  readonly sharer: Model;
}
export type AlignStrategy = "same" | "first" | "longest" | "bytes";
/**
 * How a prompt is read by both models. Message rows pair one to one; template rows may differ in number, so each side has its own
 * tokens and positions (a template part takes as many positions as its longest reading among all models: message rows then have
 * the same position everywhere). There are no pads.
 */
export interface Alignment {
  readonly strategy: AlignStrategy;
  readonly receiver: { readonly tokens: Tokens; readonly positions: Uint32Array };
  readonly sharer: { readonly tokens: Tokens; readonly positions: Uint32Array };
  /** Row ranges of equal length that are fused; the prompt's last token is in none. */
  readonly fused: readonly SpanPair[];
  /** Share of message tokens that map one to one. */
  readonly oneToOne: number;
}
export interface Span {
  readonly start: number;
  readonly end: number;
}
export interface SpanPair {
  readonly receiver: Span;
  readonly sharer: Span;
}
/** Gate logits; open when > 0; null where the projector kind has none. `keyWeight`, `valueWeight`: mean weight over fused rows and heads, 0 to 1. */
export interface GateReport {
  readonly layer: number;
  readonly key: boolean;
  readonly value: boolean;
  readonly keyWeight: number;
  readonly valueWeight: number;
}
export interface FuseReport {
  readonly positions: number;
  readonly gates: readonly GateReport[];
  readonly ms: number;
}
export interface Fuser extends AsyncDisposable {
  readonly pair: Pair;
  readonly kind: "c2c" | "ablation" | "all-in-one";
  /** Sharer layer for each receiver layer, or null where nothing is fused. */
  readonly layerMap: readonly (number | null)[];
  readonly gates: readonly { readonly key: number | null; readonly value: number | null }[];
  readonly bytes: number;
  align(prompt: Prompt, options?: { readonly strategy?: AlignStrategy }): Promise<Alignment>;
  save(folder: string, options?: { readonly format?: "native" | "reference" }): Promise<void>;
  dispose(): Promise<void>;
}
/** One sharer's share in a fusion. `spans` default to all rows but the last, equal on both sides. */
export interface Contribution {
  readonly fuser: Fuser;
  readonly sharer: KvCache;
  readonly spans?: readonly SpanPair[];
}
// ── the channel: the whole flow ───────────────────────────────────────────────────────────────────────────────────
/** `align` defaults to what the fuser was trained with. */
export interface Link {
  readonly sharer: Model;
  readonly fuser: Fuser;
  readonly align?: AlignStrategy;
  readonly span?: "prompt" | "prompt-and-response";
}
/** A run of the receiver's tokens and the links (indices) that are fused there. The last section is never fused; sections are prefilled and fused one after another. */
export interface Section {
  readonly length: number;
  readonly links: readonly number[];
}
/** A prompt in tokens, for those who do their own templates and alignment. Sections default to [all but one: every link], [one: none]. */
export interface TokenPrompt {
  readonly tokens: Tokens;
  readonly positions?: Uint32Array;
  readonly sections?: readonly Section[];
  /** What each link's sharer reads, and which of its rows belong to which of the receiver's; default: the receiver's tokens, row for row. */
  readonly sharers?: readonly {
    readonly tokens: Tokens;
    readonly positions?: Uint32Array;
    readonly rows?: readonly SpanPair[];
  }[];
}
export type ChannelPrompt = string | readonly Message[] | TokenPrompt;
export interface Channel extends Disposable {
  /** Empty for a channel by text. */
  readonly receiver: Model;
  readonly links: readonly Link[];
  /** Everything before the first new token: the fused receiver cache, and the last section's logits [its length, vocab]. */
  prefill(
    prompt: ChannelPrompt,
    options?: EncodeOptions & { readonly signal?: AbortSignal },
  ): Promise<{ readonly cache: KvCache; readonly logits: Float32Array; readonly reports: readonly FuseReport[] }>;
  generate(prompt: ChannelPrompt, options?: GenerateOptions & EncodeOptions): Generation;
  dispose(): void;
}
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
export interface GenerateOptions {
  readonly sampling?: Sampling;
  readonly maxNewTokens?: number;
  readonly stop?: readonly string[];
  /** End tokens; default: the model's generation_config. [] never stops. */
  readonly eos?: readonly number[];
  /** Token events carry their logits (before penalties). */
  readonly logits?: boolean;
  readonly repetitionPenalty?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  readonly signal?: AbortSignal;
}
export type StopReason =
  | { readonly kind: "eos"; readonly token: TokenId }
  | { readonly kind: "length" }
  | { readonly kind: "stop"; readonly match: string };
export interface Timings {
  readonly prefillMs: number;
  readonly sharerMs: number;
  readonly fuseMs: number;
  readonly firstTokenMs: number;
  readonly decodeMs: number;
  readonly promptTokens: number;
  readonly newTokens: number;
}
export type GenerationEvent =
  | {
      readonly type: "token";
      readonly id: TokenId;
      readonly text: string;
      readonly index: number;
      readonly logits?: Float32Array;
    }
  | { readonly type: "done"; readonly text: string; readonly reason: StopReason; readonly timings: Timings };
export interface Generation extends AsyncIterable<GenerationEvent>, AsyncDisposable {
  text(): Promise<string>;
  done(): Promise<Extract<GenerationEvent, { type: "done" }>>;
}
export interface ConnectOptions {
  /** What several sharers see of each other; see `fuse`. Default "sequential". */
  readonly order?: "sequential" | "parallel";
}
export interface TextOptions {
  /** What the sharer is asked, given the user's messages. */
  ask?(messages: readonly Message[]): readonly Message[];
  /** What the receiver reads, given the user's messages and the sharer's text. */
  compose?(messages: readonly Message[], text: string): readonly Message[];
  /** Length limit of the sharer's message in tokens; default 256. */
  readonly maxMessageTokens?: number;
}

// ── evaluation and audit ──────────────────────────────────────────────────────────────────────────────────────────
/**
 * `answer`: what is right: the letter of a choice, a number, a text. `choices`: their texts in order; letters from A on name them.
 * `ask`: what text-to-text asks the sharer, where the default prompt will not do. `accept`: other answers that count as right.
 */
export interface Question {
  readonly id: string;
  readonly group?: string;
  readonly messages: readonly Message[];
  readonly answer: string;
  readonly choices?: readonly string[];
  readonly ask?: string;
  readonly accept?: readonly string[];
}
/** How a text is judged. `predicted`: the answer found in it, null where there is none. `score`: partial credit, 0 to 1. */
export interface Judgement {
  readonly predicted: string | null;
  readonly correct: boolean;
  readonly score?: number;
}
/**
 * Questions and how they are asked. "generate": a greedy answer, in which the choice (or the number) is looked for; "logits": the
 * likeliest letter after "The correct answer is"; "exact": a greedy answer that must equal `answer`. `maxNewTokens` defaults to 64.
 * `judge` replaces the method's own way to judge generated text.
 */
export interface Task {
  readonly name: string;
  readonly questions: Iterable<Question> | AsyncIterable<Question>;
  readonly method: "generate" | "logits" | "exact";
  readonly maxNewTokens?: number;
  judge?(text: string, question: Question): Judgement;
}
/**
 * How a benchmark's files are asked; defaults are the layout's. `prompt`: "direct" (default), "reasoning" (step by step first) or
 * "plain" (question and choices alone). `where`: only rows whose fields have these values. `templates`: LongBench's prompts by data
 * set, the content of its dataset2prompt.json.
 */
export interface TaskOptions {
  readonly name?: string;
  readonly method?: Task["method"];
  readonly maxNewTokens?: number;
  readonly prompt?: "direct" | "reasoning" | "plain";
  readonly where?: Readonly<Record<string, string | number | boolean>>;
  readonly templates?: Readonly<Record<string, string>>;
}
/** `answers` counts predicted answers, "" where there was none; shares are from 0 to 1, `low` and `high` a 95 % interval. */
export type EvalEvent =
  | {
      readonly type: "answer";
      readonly id: string;
      readonly text: string;
      readonly predicted: string | null;
      readonly correct: boolean;
      readonly score?: number;
      readonly timings: Timings;
    }
  | {
      readonly type: "done";
      readonly accuracy: number;
      readonly low: number;
      readonly high: number;
      readonly n: number;
      readonly byGroup: Readonly<Record<string, number>>;
      readonly answers: Readonly<Record<string, number>>;
      readonly score?: number;
    };
/** `limit`: the first questions only. `batch`: questions in work at once, whose decode steps share batches; default 16. */
export interface EvaluateOptions {
  readonly limit?: number;
  readonly batch?: number;
  readonly signal?: AbortSignal;
}
/** A difference of two shares on the same questions, with its 95 % interval and McNemar's exact p. */
export interface Gain {
  readonly value: number;
  readonly low: number;
  readonly high: number;
  readonly p: number;
}
/**
 * Does anything cross? The same questions with the right sharer cache ("correct"); with another question's ("mismatched": the next
 * question in order, cyclic, whose answer differs and whose sharer rows are as many); with zero keys and values, gates still applied
 * ("zeroed"); with normal noise of the right cache's mean and deviation per layer and part ("noise"); with the receiver as its own
 * sharer where the shapes allow ("self", else null); and by text, where a text channel is given (else null). "sharer" is the sharer
 * alone, the best of them where there are several.
 */
export interface AuditReport {
  readonly n: number;
  readonly accuracy: Readonly<Record<"receiver" | "sharer" | "correct" | "mismatched" | "zeroed" | "noise", number>> & {
    readonly text: number | null;
    readonly self: number | null;
  };
  /** correct − mismatched. */
  readonly contentGain: Gain;
  /** correct − receiver. */
  readonly benefit: Gain;
  /** "harmful": benefit < 0 with p < 0.05; else "content crosses": contentGain > 0 with p < 0.05; else "no detectable content". */
  readonly verdict: "content crosses" | "no detectable content" | "harmful";
}
/** `onProgress` hears of every part ("receiver", "correct", "mismatched", …), from 0 to 1. */
export interface AuditOptions {
  readonly text?: Channel;
  readonly limit?: number;
  readonly batch?: number;
  readonly signal?: AbortSignal;
  onProgress?(part: string, done: number): void;
}
