/**
 * The public API of cache-to-cache, as its users see it. Names and shapes here are a contract; bodies are yours.
 * Type-checked with TypeScript 6 (strict, nodenext, lib esnext.disposable). Add to it freely; change it only with a reason in the note.
 * A second entry, `cache-to-cache/testing`, exports what only tests and the conformance runner need: single projectors
 * (project(sharerKey, sharerValue, receiverKey, receiverValue, { noise?, temperature? })), training with given noise, initial weights
 * and exposed gradients, layer maps with k > 1, temperature schedule, answer extraction, plain-sequence alignment. No more than that.
 */
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
export interface Message { readonly role: "system" | "user" | "assistant"; readonly content: string }
export interface ModelShape {
  readonly family: string; readonly layers: number; readonly hidden: number; readonly heads: number;
  readonly kvHeads: number; readonly headDim: number; readonly vocab: number; readonly context: number;
}
/** A tokenised prompt. `spans` mark, in token positions, what came from which message; the rest is template. */
export interface Prompt {
  readonly text: string; readonly tokens: Tokens; readonly messages: readonly Message[];
  readonly spans: readonly { readonly message: number; readonly start: number; readonly end: number }[];
}
/** `generationPrompt` defaults to true. `continueLast`: the last message is an answer begun, its text is left open. */
export interface EncodeOptions { readonly thinking?: boolean; readonly generationPrompt?: boolean; readonly continueLast?: boolean }
export interface Model extends AsyncDisposable {
  readonly id: string; readonly shape: ModelShape; readonly device: Device; readonly dtype: DType; readonly bytes: number; readonly disposed: boolean;
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
  prefill(tokens: Tokens, options?: { readonly into?: KvCache; readonly from?: KvCache; readonly positions?: Uint32Array; readonly signal?: AbortSignal }): Promise<KvCache>;
  /** Appends the tokens and returns their logits, [tokens.length, vocab] float32, row-major. */
  logits(cache: KvCache, tokens: Tokens, options?: { readonly positions?: Uint32Array; readonly signal?: AbortSignal }): Promise<Float32Array>;
  /** Appends `next` (one token or more, usually the prompt's last) to the cache and continues from there. Several may run at once, each on its own cache. */
  generate(cache: KvCache, next: Tokens, options?: GenerateOptions): Generation;
  dispose(): Promise<void>;
}

// ── the cache: a value ────────────────────────────────────────────────────────────────────────────────────────────
export interface KvCache extends Disposable {
  readonly model: Model; readonly tokens: Tokens; readonly positions: Uint32Array; readonly length: number; readonly capacity: number; readonly bytes: number; readonly disposed: boolean;
  /** How many leading positions were reused when this cache was made with `from`. */
  readonly reused: number;
  fork(): KvCache;
  truncate(length: number): void;
  /** A copy, [positions, kvHeads, headDim], in float32. Keys are rotated (post-RoPE), as models store them. */
  read(layer: number, part: "key" | "value", range?: { readonly start: number; readonly end: number }): Float32Array;
  write(layer: number, part: "key" | "value", start: number, data: Float32Array): void;
  save(path: string, options?: { readonly quantize?: "int8" | "int4" }): Promise<void>;
  dispose(): void;
}

// ── the fuser ─────────────────────────────────────────────────────────────────────────────────────────────────────
export interface Pair { readonly receiver: Model; readonly sharer: Model }
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
export interface Span { readonly start: number; readonly end: number }
export interface SpanPair { readonly receiver: Span; readonly sharer: Span }
/** Gate logits; open when > 0; null where the projector kind has none. `keyWeight`, `valueWeight`: mean weight over fused rows and heads, 0 to 1. */
export interface GateReport { readonly layer: number; readonly key: boolean; readonly value: boolean; readonly keyWeight: number; readonly valueWeight: number }
export interface FuseReport { readonly positions: number; readonly gates: readonly GateReport[]; readonly ms: number }
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
export interface Contribution { readonly fuser: Fuser; readonly sharer: KvCache; readonly spans?: readonly SpanPair[] }
/**
 * The gated write: projects the sharers' rows and adds them to the receiver's, in place. "parallel": each projects from the clean
 * receiver rows, the differences are added; "sequential" (default): each sees what the one before wrote.
 * The receiver's later rows must be prefilled after the fusion of earlier spans, since they attend to fused rows: several spans in
 * one call is for spans that were prefilled together. `Channel.prefill` does this right.
 */
export declare function fuse(receiver: KvCache, from: readonly Contribution[], options?: { readonly order?: "sequential" | "parallel"; readonly signal?: AbortSignal }): Promise<readonly FuseReport[]>;

// ── the channel: the whole flow ───────────────────────────────────────────────────────────────────────────────────
/** `align` defaults to what the fuser was trained with. */
export interface Link { readonly sharer: Model; readonly fuser: Fuser; readonly align?: AlignStrategy; readonly span?: "prompt" | "prompt-and-response" }
/** A run of the receiver's tokens and the links (indices) that are fused there. The last section is never fused; sections are prefilled and fused one after another. */
export interface Section { readonly length: number; readonly links: readonly number[] }
/** A prompt in tokens, for those who do their own templates and alignment. Sections default to [all but one: every link], [one: none]. */
export interface TokenPrompt {
  readonly tokens: Tokens; readonly positions?: Uint32Array; readonly sections?: readonly Section[];
  /** What each link's sharer reads, and which of its rows belong to which of the receiver's; default: the receiver's tokens, row for row. */
  readonly sharers?: readonly { readonly tokens: Tokens; readonly positions?: Uint32Array; readonly rows?: readonly SpanPair[] }[];
}
export type ChannelPrompt = string | readonly Message[] | TokenPrompt;
export interface Channel extends Disposable {
  /** Empty for a channel by text. */
  readonly receiver: Model; readonly links: readonly Link[];
  /** Everything before the first new token: the fused receiver cache, and the last section's logits [its length, vocab]. */
  prefill(prompt: ChannelPrompt, options?: EncodeOptions & { readonly signal?: AbortSignal }): Promise<{ readonly cache: KvCache; readonly logits: Float32Array; readonly reports: readonly FuseReport[] }>;
  generate(prompt: ChannelPrompt, options?: GenerateOptions & EncodeOptions): Generation;
  dispose(): void;
}
export type Sampling =
  | { readonly kind: "greedy" }
  | { readonly kind: "sample"; readonly temperature: number; readonly topP?: number; readonly topK?: number; readonly minP?: number; readonly seed?: bigint };
export interface GenerateOptions {
  readonly sampling?: Sampling; readonly maxNewTokens?: number; readonly stop?: readonly string[];
  /** End tokens; default: the model's generation_config. [] never stops. */
  readonly eos?: readonly number[];
  /** Token events carry their logits (before penalties). */
  readonly logits?: boolean;
  readonly repetitionPenalty?: number; readonly presencePenalty?: number; readonly frequencyPenalty?: number;
  readonly signal?: AbortSignal;
}
export type StopReason = { readonly kind: "eos"; readonly token: TokenId } | { readonly kind: "length" } | { readonly kind: "stop"; readonly match: string };
export interface Timings { readonly prefillMs: number; readonly sharerMs: number; readonly fuseMs: number; readonly firstTokenMs: number; readonly decodeMs: number; readonly promptTokens: number; readonly newTokens: number }
export type GenerationEvent =
  | { readonly type: "token"; readonly id: TokenId; readonly text: string; readonly index: number; readonly logits?: Float32Array }
  | { readonly type: "done"; readonly text: string; readonly reason: StopReason; readonly timings: Timings };
export interface Generation extends AsyncIterable<GenerationEvent>, AsyncDisposable {
  text(): Promise<string>;
  done(): Promise<Extract<GenerationEvent, { type: "done" }>>;
}

export declare function loadModel(source: Source, options?: LoadOptions): Promise<Model>;
export declare function loadFuser(source: Source, pair: Pair, options?: LoadOptions): Promise<Fuser>;
export declare function loadCache(path: string, model: Model): Promise<KvCache>;
export declare function connect(receiver: Model, links: readonly Link[], options?: { readonly order?: "sequential" | "parallel" }): Channel;
/** The baseline: the sharer writes a message, the receiver reads it. Defaults: the reference's two-stage prompts. */
export declare function connectByText(receiver: Model, sharer: Model, options?: {
  /** What the sharer is asked, given the user's messages. */
  ask?(messages: readonly Message[]): readonly Message[];
  /** What the receiver reads, given the user's messages and the sharer's text. */
  compose?(messages: readonly Message[], text: string): readonly Message[];
  readonly maxMessageTokens?: number;
}): Channel;

// ── training, evaluation, audit ───────────────────────────────────────────────────────────────────────────────────
export interface Sample { readonly messages: readonly Message[] }
export interface FuserRecipe {
  readonly hidden?: number; readonly intermediate?: number; readonly layers?: number; readonly dropout?: number;
  readonly layerMap?: "last-aligned" | "nearest" | readonly (number | null)[]; readonly align?: AlignStrategy;
  readonly learningRate?: number; readonly weightDecay?: number; readonly warmupRatio?: number; readonly clipNorm?: number;
  readonly batchSize?: number; readonly accumulate?: number; readonly epochs?: number; readonly maxSteps?: number; readonly maxTokens?: number;
  /** Length of the learning-rate schedule where it differs from the steps run; `warmupSteps` overrides the ratio. */
  readonly scheduleSteps?: number; readonly warmupSteps?: number; readonly shuffle?: boolean;
  readonly span?: "prompt" | "prompt-and-response"; readonly gumbel?: boolean; readonly dtype?: DType; readonly recompute?: boolean;
  readonly checkpointEvery?: number; readonly validateEvery?: number;
  readonly temperature?: { readonly initial: number; readonly final: number; readonly steps?: number }; readonly seed?: bigint;
}
export type TrainEvent =
  | { readonly type: "step"; readonly step: number; readonly loss: number; readonly gradNorm: number; readonly learningRate: number; readonly temperature: number; readonly openGates: number; readonly tokensPerSecond: number }
  | { readonly type: "validation"; readonly step: number; readonly loss: number }
  | { readonly type: "checkpoint"; readonly step: number; readonly folder: string }
  | { readonly type: "done"; readonly fuser: Fuser };
export declare function trainFuser(
  pair: Pair, data: Iterable<Sample> | AsyncIterable<Sample>, recipe?: FuserRecipe,
  options?: { readonly init?: Fuser; readonly folder?: string; readonly resume?: boolean; readonly validation?: readonly Sample[]; readonly signal?: AbortSignal },
): AsyncIterable<TrainEvent>;

/** `ask`: what text-to-text asks the sharer, where the default prompt will not do. */
export interface Question { readonly id: string; readonly group?: string; readonly messages: readonly Message[]; readonly answer: string; readonly choices?: readonly string[]; readonly ask?: string }
export interface Task { readonly name: string; readonly questions: Iterable<Question> | AsyncIterable<Question>; readonly method: "generate" | "logits" | "exact"; readonly maxNewTokens?: number }
export type EvalEvent =
  | { readonly type: "answer"; readonly id: string; readonly text: string; readonly predicted: string | null; readonly correct: boolean; readonly timings: Timings }
  | { readonly type: "done"; readonly accuracy: number; readonly low: number; readonly high: number; readonly n: number; readonly byGroup: Readonly<Record<string, number>>; readonly answers: Readonly<Record<string, number>> };
export declare function evaluate(subject: Model | Channel, task: Task, options?: { readonly limit?: number; readonly batch?: number; readonly signal?: AbortSignal }): AsyncIterable<EvalEvent>;
/**
 * Does anything cross? The same questions with the right sharer cache ("correct"); with another question's ("mismatched": the next
 * question in order, cyclic, whose answer differs and whose sharer rows are as many); with zero keys and values, gates still applied
 * ("zeroed"); with normal noise of the right cache's mean and deviation per layer and part ("noise"); with the receiver as its own
 * sharer where the shapes allow ("self", else null); and by text, where a text channel is given (else null).
 */
export interface AuditReport {
  readonly n: number;
  readonly accuracy: Readonly<Record<"receiver" | "sharer" | "correct" | "mismatched" | "zeroed" | "noise", number>> & { readonly text: number | null; readonly self: number | null };
  /** correct − mismatched, with its 95 % interval (paired) and McNemar's exact p. */
  readonly contentGain: { readonly value: number; readonly low: number; readonly high: number; readonly p: number };
  /** correct − receiver, likewise. */
  readonly benefit: { readonly value: number; readonly low: number; readonly high: number; readonly p: number };
  /** "harmful": benefit < 0 with p < 0.05; else "content crosses": contentGain > 0 with p < 0.05; else "no detectable content". */
  readonly verdict: "content crosses" | "no detectable content" | "harmful";
}
export declare function audit(channel: Channel, task: Task, options?: { readonly text?: Channel; readonly limit?: number; readonly signal?: AbortSignal }): Promise<AuditReport>;

