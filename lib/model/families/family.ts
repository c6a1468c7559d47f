import type { DecoderSpec, LayerSpec, RopeSpec } from "../../../typings/native.js";
import type { ConfigFile } from "./config-file.js";

/** What a family adds to, or changes in, the plain decoder that its config describes. */
export interface FamilyTraits {
  readonly tied: boolean;
  readonly qkNorm: boolean;
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  readonly activation: DecoderSpec["activation"];
  readonly queryScale: number;
  readonly ropes: readonly RopeSpec[];
  readonly layers: readonly LayerSpec[];
  /** Default 0. */
  readonly normOffset?: number;
  /** Default 1. */
  readonly embeddingScale?: number;
  /** Default false. */
  readonly postNorms?: boolean;
  /** Default 0. */
  readonly logitSoftcap?: number;
}

/** One decoder family: which configs it reads and how. */
export interface Family {
  readonly name: string;
  /** `model_type` values. */
  readonly modelTypes: readonly string[];
  /** Names in `architectures`. */
  readonly architectures: readonly string[];
  /** What may come before "embed_tokens.weight", most usual first. */
  readonly prefixes: readonly string[];
  /** The config that describes the text decoder, where it is nested in another. */
  nested?(config: ConfigFile): ConfigFile;
  traits(config: ConfigFile, dims: Dimensions): FamilyTraits;
}

/** Sizes that every family's config gives. */
export interface Dimensions {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly context: number;
}
