import type { projectorKinds } from "../fuser/projectors/index.js";
import type { AlignStrategy, DType, Fuser, Message } from "../types.js";

/** Kinds of projectors: "c2c", "ablation", "all-in-one". */
export type FuserKind = (typeof projectorKinds)[number]["kind"];
/** The reference's classes of the same: "C2CProjector", "AblationProjector", "AllInOneProjector". */
export type ProjectorClass = (typeof projectorKinds)[number]["class"];

/** A conversation that ends with the assistant's message that is learnt. */
export interface Sample {
  /** One message or more, then the assistant's. */
  readonly messages: readonly Message[];
  /** What the sharer reads instead, with or without a response; it must align to as many rows (OPTION_INVALID). */
  readonly sharerMessages?: readonly Message[];
}
/** A projector class and its options, under the reference's names. */
export interface ProjectorChoice {
  /** The class. */
  readonly kind: ProjectorClass;
  /** Constructor arguments; what is left out has the class's default. */
  readonly options?: Readonly<Record<string, number | boolean | string>>;
}
/** How a fuser is trained. */
export interface FuserRecipe {
  /** Width of the projectors; default 1024. */
  readonly hidden?: number;
  /** Inner width of their blocks; default 1024. */
  readonly intermediate?: number;
  /** Their layers, 3 or more; default 3. */
  readonly layers?: number;
  /** Default 0.1. */
  readonly dropout?: number;
  /** Default: C2CProjector. */
  readonly projector?: ProjectorChoice;
  /** A sharer layer (or null: not fused) for each receiver layer; default last-aligned. */
  readonly layerMap?: "last-aligned" | "nearest" | readonly (number | null)[];
  /** Default "same". */
  readonly align?: AlignStrategy;
  /** The highest; default 1e-4. */
  readonly learningRate?: number;
  /** AdamW's, on all weights; default 0.01. */
  readonly weightDecay?: number;
  /** AdamW's; default 0.9, 0.999. */
  readonly betas?: readonly [number, number];
  /** Share of the schedule in which the rate rises; default 0.1. */
  readonly warmupRatio?: number;
  /** The L2 norm that gradients are clipped to; 0: off. Default 1. */
  readonly clipNorm?: number;
  /** Samples in a micro-batch; default 4. */
  readonly batchSize?: number;
  /** Micro-batches in a step; default 8. */
  readonly accumulate?: number;
  /** How often an array is gone through; default 1. */
  readonly epochs?: number;
  /** Steps; data of unknown length needs it. Default: what the epochs take. */
  readonly maxSteps?: number;
  /** Tokens that a sample is cut to; samples whose response is cut off whole are skipped. Default 2048. */
  readonly maxTokens?: number;
  /** Length of the learning-rate schedule, where it differs from the steps run. */
  readonly scheduleSteps?: number;
  /** Overrides the ratio. */
  readonly warmupSteps?: number;
  /** Default: true for arrays (a new order each time through), false for other data, where true draws from the next 1,024 samples. */
  readonly shuffle?: boolean;
  /** What is fused: the prompt (default), or the response's rows too. */
  readonly span?: "prompt" | "prompt-and-response";
  /** Soft gates with Gumbel noise; false: hard gates, which stay as they are. Default true. */
  readonly gumbel?: boolean;
  /** Of the projectors' products; their weights and moments are float32. Default: the receiver's. */
  readonly dtype?: DType;
  /** Keep only each layer's input for the backward pass; default false. */
  readonly recompute?: boolean;
  /** Steps between checkpoints; default 500. */
  readonly checkpointEvery?: number;
  /** Steps between validations; default 100. */
  readonly validateEvery?: number;
  /** Of the soft gates: exponential from `initial` to `final` over `steps`; default 1 to 0.001 over all steps. */
  readonly temperature?: { readonly initial: number; readonly final: number; readonly steps?: number };
  /** Of first weights, gate noise, dropout and order; default 42. */
  readonly seed?: bigint;
}
/**
 * `loss` of the step's batch, mean per learnt token; `gradNorm` before clipping; `openGates`: how many gates are open (above 0, or without a
 * logit); `tokensPerSecond` counts the receiver's rows; `skipped`: samples so far whose response `maxTokens` cut off.
 */
export type TrainEvent =
  | {
      readonly type: "step";
      readonly step: number;
      readonly loss: number;
      readonly gradNorm: number;
      readonly learningRate: number;
      readonly temperature: number;
      readonly openGates: number;
      readonly tokensPerSecond: number;
      readonly skipped: number;
    }
  | { readonly type: "validation"; readonly step: number; readonly loss: number }
  | { readonly type: "checkpoint"; readonly step: number; readonly folder: string }
  | { readonly type: "done"; readonly fuser: Fuser };
