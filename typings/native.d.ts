/**
 * The whole native contract. A test compares it with the addon's exports.
 * Every rejected or thrown error carries `code` (an ErrorCode, or "CANCELLED") and `details` (see lib/errors.ts).
 */

/** One tensor of a table: bytes [begin, end) of `files[file]`, row-major. */
export interface TensorEntry {
  /** Unique in its table. */
  readonly name: string;
  /** Under safetensors' names. */
  readonly dtype: "F32" | "BF16" | "F16" | "F64";
  /** Row-major; empty for one value. */
  readonly shape: readonly number[];
  /** Index into the table's files. */
  readonly file: number;
  /** The first byte in its file. */
  readonly begin: number;
  /** The byte behind the last. */
  readonly end: number;
}
/** Tensors as they lie in files; native maps the files. */
export interface TensorTable {
  /** Paths. */
  readonly files: readonly string[];
  /** In no particular order. */
  readonly tensors: readonly TensorEntry[];
}

export interface RopeSpec {
  /** headDim / 2 values: radians per position. */
  readonly inverseFrequencies: Float64Array;
}
/** `rope` indexes DecoderSpec.ropes; `window` 0 is full attention, else a key is seen iff queryPosition - keyPosition < window. */
export interface LayerSpec {
  readonly rope: number;
  readonly window: number;
}
/** What a decoder family is, once its config.json is understood. */
export interface DecoderSpec {
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediate: number;
  readonly vocab: number;
  /** Positions the model was made for. */
  readonly context: number;
  readonly normEps: number;
  /** RMSNorm multiplies by (weight + normOffset): 0, or 1 for Gemma. */
  readonly normOffset: number;
  readonly activation: "silu" | "gelu" | "gelu_tanh";
  /** Embeddings are multiplied by this (rounded to the weights' dtype first, as Gemma does); 1 elsewhere. */
  readonly embeddingScale: number;
  /** Attention scores are q·k times this. */
  readonly queryScale: number;
  readonly qkNorm: boolean;
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** Gemma: norms after attention and after the feed-forward too (4 a layer). */
  readonly postNorms: boolean;
  readonly tied: boolean;
  /** 0: none. */
  readonly logitSoftcap: number;
  readonly ropes: readonly RopeSpec[];
  readonly layers: readonly LayerSpec[];
  /** What comes before "embed_tokens.weight" and "layers.0…" in tensor names, e.g. "model.". */
  readonly prefix: string;
  /** The head's tensor name when not tied, e.g. "lm_head.weight". */
  readonly head: string;
}

/** Where tensors lie. Whether there is such a device is the façade's to ask (`Native.devices`). */
export type NativeDevice = { readonly kind: "cpu" } | { readonly kind: "cuda"; readonly index: number };
/** A CUDA device; `name` "" and `memory` (bytes) 0 where this build cannot ask. */
export interface NativeDeviceFacts {
  readonly index: number;
  readonly name: string;
  readonly memory: number;
  /** This build's own kernels run there; else plain operations do. */
  readonly kernels: boolean;
}

export class NativeCancel {
  constructor();
  cancel(): void;
}

export interface SamplerOptions {
  /** 0: greedy. */
  readonly temperature: number;
  /** 0: off. */
  readonly topK: number;
  /** 1: off. */
  readonly topP: number;
  /** 0: off. */
  readonly minP: number;
  readonly seed: bigint;
  /** 1: off. */
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** Token ids already in the text: what penalties count from the start. */
  readonly history: Uint32Array;
}
/** Owns penalties' counts and the random stream of one generation. */
export class NativeSampler {
  constructor(options: SamplerOptions);
  /** Chooses from one row of logits and counts the choice. */
  pick(logits: Float32Array): number;
}

/** An eviction policy by its name (see cpp/cache/policies). */
export interface PolicyOptions {
  readonly kind: string;
  readonly [number: string]: string | number | undefined;
}

/** How rows are kept: as they are, in 8 or in 4 bits. */
export type CacheForm = "plain" | "int8" | "int4";
/** A run of a cache's rows of one form; in 8 or 4 bits `skip` rows come before them that are not the cache's. */
export interface CachePart {
  readonly form: CacheForm;
  readonly rows: number;
  readonly skip: number;
}
/** What a file of a cache holds: tensors in the file's order (see cpp/cache/file.h). */
export interface CachePlan {
  readonly parts: readonly CachePart[];
  readonly tensors: readonly { readonly name: string; readonly dtype: string; readonly shape: readonly number[] }[];
}
/** A cache as a file's header describes it, by the offsets of its tensors. */
export interface CacheFileSpec {
  readonly rows: number;
  readonly tokens: number;
  readonly positions: number;
  /** `begins`: of rows; or of keys, key_scales, values and value_scales. */
  readonly parts: readonly (CachePart & { readonly begins: Float64Array })[];
  /** Null: it grows. */
  readonly capacity: number | null;
  readonly policy: PolicyOptions | null;
}

/** Root mean square of differences over that of values; the largest difference. */
export interface NativeValueError {
  readonly relative: number;
  readonly largest: number;
}

export class NativeCache {
  readonly length: number;
  readonly capacity: number;
  readonly bytes: number;
  /** The most rows that can come in at once where a policy makes room for them; null without one. */
  readonly most: number | null;
  tokens(): Uint32Array;
  positions(): Uint32Array;
  fork(): NativeCache;
  truncate(length: number): void;
  /** [end - start, kvHeads, headDim] float32; part 0 is key, 1 is value. */
  read(layer: number, part: 0 | 1, start: number, end: number): Float32Array;
  write(layer: number, part: 0 | 1, start: number, data: Float32Array): void;
  /**
   * Appends rows [start, end) of another cache of the same model with their tokens, and with their positions, or (`behind`) turned so
   * that the first stands behind this cache's last row.
   */
  append(from: NativeCache, start: number, end: number, behind: boolean): void;
  /** A cache of rows [start, end), which it shares until either side writes. */
  slice(start: number, end: number): NativeCache;
  /** Forgets rows [start, end); later ones move down by as many positions. */
  erase(start: number, end: number): void;
  /** Moves all rows by `by` positions. */
  shift(by: number): void;
  /**
   * A cache of the same rows, plain ones in 8 or 4 bits (see cpp/cache/quantized.h). `bytes`: what the rows take then; `plain`: what
   * they take as they are. Errors: of those that were plain.
   */
  quantize(
    form: "int8" | "int4",
    cancel: NativeCancel | null,
  ): Promise<{
    cache: NativeCache;
    bytes: number;
    plain: number;
    keyError: NativeValueError;
    valueError: NativeValueError;
  }>;
  /** What `save` writes now. */
  plan(): CachePlan;
  /**
   * Writes header and tensors to the empty open file `file`, then the checksum over the 16 zeros that the header holds at
   * `checksumAt`; returns it.
   */
  save(
    file: number,
    path: string,
    header: Uint8Array,
    checksumAt: number,
    cancel: NativeCancel | null,
  ): Promise<string>;
  dispose(): void;
}

export type LogitsWanted = "none" | "last" | "all";
/** One of several prefills; as the arguments of NativeModel.forward. */
export interface NativePrefill {
  readonly model: NativeModel;
  readonly cache: NativeCache;
  readonly tokens: Uint32Array;
  readonly positions: Uint32Array;
}

export class NativeModel {
  readonly bytes: number;
  readonly dtype: "float32" | "bfloat16";
  /** `policy`: what makes room in a cache that is full; its `kind`, and its numbers by name. */
  cache(capacity: number, grow: boolean, policy: PolicyOptions | null): NativeCache;
  /** Maps the open file `file`, which may be closed afterwards. */
  loadCache(file: number, path: string, spec: CacheFileSpec): NativeCache;
  /**
   * Appends the tokens' keys and values; with `given` true the cache's last tokens.length rows already hold them
   * (only queries are computed, keys and values are left as they are). `positions` null: those behind the cache's last row, once its
   * policy has made room. Logits: [rows, vocab] float32, or null for "none".
   */
  forward(
    cache: NativeCache,
    tokens: Uint32Array,
    positions: Uint32Array | null,
    logits: LogitsWanted,
    given: boolean,
    cancel: NativeCancel | null,
  ): Promise<Float32Array | null>;
  /**
   * forward, then the sampler's choice from the last row: its id alone unless logits are wanted. Steps waiting for one model run as
   * one ragged batch.
   */
  step(
    cache: NativeCache,
    sampler: NativeSampler,
    tokens: Uint32Array,
    positions: Uint32Array | null,
    given: boolean,
    wantLogits: boolean,
    cancel: NativeCancel | null,
  ): Promise<number | { id: number; logits: Float32Array }>;
  dispose(): void;
}

/** Heads of keys and values of one layer. */
export interface HeadShape {
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Values of a head. */
  readonly headDim: number;
}
export interface ProjectorSpec {
  /** The reference's class name: "C2CProjector", "AblationProjector", "AllInOneProjector". */
  readonly kind: string;
  readonly receiverLayer: number;
  readonly sharerLayer: number;
  /** init_args without dims, head counts and dtype, under the reference's names (hidden_dim, num_layers, ablation_level, …), defaults filled in. */
  readonly options: Readonly<Record<string, number | boolean | string>>;
  /** Tensor names in the table are prefix + state_dict key. */
  readonly prefix: string;
}
export interface FuserSpec {
  readonly dtype: "float32" | "bfloat16";
  /** Where its weights are put, and where receivers' caches must lie. */
  readonly device: NativeDevice;
  readonly receiver: HeadShape;
  readonly sharer: HeadShape;
  readonly projectors: readonly ProjectorSpec[];
}
export interface NativeLayerReport {
  readonly layer: number;
  readonly key: boolean;
  readonly value: boolean;
  readonly keyWeight: number;
  readonly valueWeight: number;
}
export interface NativeFuseReport {
  readonly positions: number;
  readonly ms: number;
  readonly layers: readonly NativeLayerReport[];
}
export class NativeFuser {
  readonly bytes: number;
  /** Gate logits by projector, in the spec's order; null where the kind has none. */
  gates(): { key: number | null; value: number | null }[];
  /**
   * One projector alone, on rows [tokens, heads, dim] float32. `noise`: uniform draws for the key gate, then for the value gate
   * ([tokens, receiver kvHeads] each), as in training; null: as in inference.
   */
  project(
    index: number,
    rows: {
      sharerKey: Float32Array;
      sharerValue: Float32Array;
      receiverKey: Float32Array;
      receiverValue: Float32Array;
    },
    tokens: number,
    noise: readonly Float32Array[] | null,
    temperature: number,
  ): Promise<{ key: Float32Array; value: Float32Array }>;
  dispose(): void;
}
export interface NativeContribution {
  readonly fuser: NativeFuser;
  readonly sharer: NativeCache;
  /** Four numbers a span: receiver start, receiver end, sharer start, sharer end. */
  readonly spans: Uint32Array;
}

/** AdamW's constants and the L2 norm to clip gradients to (0: off). */
export interface OptimizerSpec {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  readonly clipNorm: number;
}
export interface NativeParameter {
  readonly name: string;
  readonly shape: readonly number[];
}
/** What a trainer keeps of a weight: itself, its gradient, and the optimiser's two moments. */
export type TrainerPart = "value" | "gradient" | "first" | "second";
export interface ModelTrainerSpec extends OptimizerSpec {
  /** Of activations and products; weights and moments are float32. */
  readonly dtype: "float32" | "bfloat16";
  /** Blocks whose outputs are scored too (numbers from 0), and the weight of their mean loss. */
  readonly exitLayers: Uint32Array;
  readonly exitWeight: number;
  /** Keep only each block's input for the backward pass. */
  readonly recompute: boolean;
  readonly seed: bigint;
  /** Standard deviation of new weights. */
  readonly initRange: number;
}
/** Documents one after another, without padding. */
export interface DocumentBatch {
  readonly tokens: Uint32Array;
  /** Rows of each document. */
  readonly lengths: Uint32Array;
  /** Rows that are scored, and the token that follows each. */
  readonly targetRows: Uint32Array;
  readonly targetIds: Uint32Array;
}
export class NativeModelTrainer {
  parameters(): NativeParameter[];
  read(part: TrainerPart, name: string): Promise<Float32Array>;
  write(name: string, values: Float32Array): Promise<void>;
  /** Fills all weights from the tensors of their names. */
  load(table: TensorTable): Promise<void>;
  /** Fills weights and moments from "value/NAME", "first/NAME", "second/NAME"; `steps`: optimiser steps so far. */
  restore(table: TensorTable, steps: number): Promise<void>;
  /** Adds the gradients of the batch's mean loss and returns it. */
  accumulate(batch: DocumentBatch, cancel: NativeCancel | null): Promise<number>;
  /** Clips, takes one optimiser step and clears the gradients; returns their norm before clipping. */
  update(learningRate: number): Promise<number>;
  dispose(): void;
}

export interface FuserTrainerSpec extends OptimizerSpec {
  /** Of the projectors; weights and moments are float32. */
  readonly dtype: "float32" | "bfloat16";
  /** Soft gates with noise; without it gates are hard and stay as they are. */
  readonly gumbel: boolean;
  /** Keep only each layer's input for the backward pass. */
  readonly recompute: boolean;
  readonly seed: bigint;
  readonly projectors: readonly ProjectorSpec[];
}
/** One model's rows, sample by sample, without padding. */
export interface NativeReading {
  readonly tokens: Uint32Array;
  readonly positions: Uint32Array;
  /** Rows of each sample. */
  readonly lengths: Uint32Array;
}
export interface FuserBatch {
  readonly receiver: NativeReading;
  readonly sharer: NativeReading;
  /** Sections of each sample, and the row behind each section (counted from its sample's first row), sample after sample. */
  readonly sectionCounts: Uint32Array;
  readonly sectionEnds: Uint32Array;
  /** Four numbers a run, each inside one section: sample, receiver start, receiver end, sharer start. */
  readonly fused: Uint32Array;
  /** Receiver rows of the batch that are scored, and the token that follows each. */
  readonly targetRows: Uint32Array;
  readonly targetIds: Uint32Array;
}
export interface TrainingDraw {
  /** Every random number of the call is made from these two. */
  readonly seed: bigint;
  readonly counter: number;
  readonly temperature: number;
  /** Of the loss in the gradients. */
  readonly scale: number;
  /** Uniform draws [rows, receiver kvHeads]: key, value of each projector, wave after wave; null: drawn from the seed. */
  readonly noise: readonly Float32Array[] | null;
}
/** Trains projectors between two frozen models; parameters are called prefix + state_dict key. */
export class NativeFuserTrainer {
  parameters(): NativeParameter[];
  read(part: TrainerPart, name: string): Promise<Float32Array>;
  write(name: string, values: Float32Array): Promise<void>;
  load(table: TensorTable): Promise<void>;
  restore(table: TensorTable, steps: number): Promise<void>;
  /** Adds the gradients of the batch's mean loss, times `scale`; returns the loss. */
  accumulate(batch: FuserBatch, draw: TrainingDraw, cancel: NativeCancel | null): Promise<number>;
  /** The batch's mean loss in inference: hard gates, no dropout. */
  evaluate(batch: FuserBatch, cancel: NativeCancel | null): Promise<number>;
  update(learningRate: number): Promise<number>;
  /** As NativeFuser.gates. */
  gates(): { key: number | null; value: number | null }[];
  /** A copy for inference. */
  fuser(dtype: "float32" | "bfloat16"): Promise<NativeFuser>;
  dispose(): void;
}

export interface Native {
  readonly NativeCancel: typeof NativeCancel;
  readonly NativeSampler: typeof NativeSampler;
  readonly NativeCache: typeof NativeCache;
  readonly NativeModel: typeof NativeModel;
  readonly NativeFuser: typeof NativeFuser;
  readonly NativeModelTrainer: typeof NativeModelTrainer;
  readonly NativeFuserTrainer: typeof NativeFuserTrainer;
  loadModel(
    spec: DecoderSpec,
    table: TensorTable,
    dtype: "float32" | "bfloat16",
    /** Weights in 8 or 4 bits; `dtype` is then that of caches alone. */
    quantize: "int8" | "int4" | null,
    progress: ((tensors: number, of: number) => void) | null,
    cancel: NativeCancel | null,
    device: NativeDevice,
  ): Promise<NativeModel>;
  /**
   * NativeModel.forward without logits, a promise for each, on caches that differ. All are submitted before any starts; those of
   * different models on one CUDA device run side by side. Throws, and starts none, where an argument is wrong.
   */
  prefillTogether(prefills: readonly NativePrefill[], cancel: NativeCancel | null): Promise<null>[];
  /** UNSUPPORTED for models on another device than the CPU. */
  createFuserTrainer(
    receiver: NativeModel,
    sharer: NativeModel,
    options: FuserTrainerSpec,
  ): Promise<NativeFuserTrainer>;
  createModelTrainer(spec: DecoderSpec, options: ModelTrainerSpec): Promise<NativeModelTrainer>;
  loadFuser(spec: FuserSpec, table: TensorTable, cancel: NativeCancel | null): Promise<NativeFuser>;
  fuse(
    receiver: NativeCache,
    contributions: readonly NativeContribution[],
    order: "sequential" | "parallel",
    cancel: NativeCancel | null,
  ): Promise<NativeFuseReport[]>;
  /** Whether an open file has this checksum, whose digits are at `checksumAt`. */
  checkCacheFile(
    file: number,
    path: string,
    checksumAt: number,
    checksum: string,
    cancel: NativeCancel | null,
  ): Promise<boolean>;
  /**
   * libtorch's version as the addon sees it at run time, e.g. "2.13.0". `stepMs`: what steps of decode computed in this process so
   * far, without their way to the executor and back.
   */
  info(): { libtorch: string; threads: number; stepMs: number };
  /** CUDA devices by index; none before the loader has opened libtorch's part for CUDA. */
  devices(): NativeDeviceFacts[];
  setThreads(threads: number): void;
  /** Handles of each kind that hold a native object now, in all environments of the process. */
  liveHandles(): { model: number; fuser: number; cache: number; sampler: number; cancel: number };
  /** Cancels what runs, drops what waits and joins the executor; for process.on("exit"). */
  drain(): void;
}
