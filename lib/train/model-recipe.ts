import { integer, invalid, loadDType } from "../options.js";
import type { DType } from "../types.js";
import { number, seed64 } from "./options.js";

/** How a decoder is trained: AdamW, linear warm-up and decay, clipping. */
export interface ModelRecipe {
  /** The highest; default 1e-3. */
  readonly learningRate?: number;
  /** On matrices only; default 0.05. */
  readonly weightDecay?: number;
  /** AdamW's; default 0.9, 0.98. */
  readonly betas?: readonly [number, number];
  /** Default: a twentieth of the steps. */
  readonly warmupSteps?: number;
  /** Optimiser steps, 1 or more. */
  readonly steps: number;
  /** Documents in a step; default 64. */
  readonly batchSize?: number;
  /** The L2 norm that gradients are clipped to; 0: off. Default 1. */
  readonly clipNorm?: number;
  /** Of the first weights; default 0. */
  readonly seed?: bigint;
  /** Scores the outputs of these blocks too (from 0), through the final norm and the head: `weight` times their mean loss is added. */
  readonly earlyExit?: { readonly layers: readonly number[]; readonly weight: number };
  /** Of activations and products; weights and moments are float32. Default float32. */
  readonly dtype?: DType;
  /** Steps between checkpoints; default 500. */
  readonly checkpointEvery?: number;
  /** Keep only each block's input for the backward pass; default false. */
  readonly recompute?: boolean;
}

/** A model recipe, checked, defaults filled in. */
export interface CheckedModelRecipe {
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly betas: readonly [number, number];
  readonly warmupSteps: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly clipNorm: number;
  readonly seed: bigint;
  readonly earlyExit: { readonly layers: readonly number[]; readonly weight: number };
  readonly dtype: "float32" | "bfloat16";
  readonly checkpointEvery: number;
  readonly recompute: boolean;
}

/** OPTION_INVALID or UNSUPPORTED for what cannot be trained with. */
export function checkModelRecipe(recipe: ModelRecipe, layers: number): CheckedModelRecipe {
  const steps = integer("steps", recipe.steps, 1);
  const exit = recipe.earlyExit ?? { layers: [], weight: 0 };
  if (!Array.isArray(exit.layers)) throw invalid("earlyExit.layers", "must be a list of blocks");
  const [beta1, beta2] = recipe.betas ?? [0.9, 0.98];
  return {
    learningRate: number("learningRate", recipe.learningRate ?? 1e-3, 0),
    weightDecay: number("weightDecay", recipe.weightDecay ?? 0.05, 0),
    betas: [number("betas", beta1, 0, 1 - 1e-9), number("betas", beta2, 0, 1 - 1e-9)],
    warmupSteps: integer("warmupSteps", recipe.warmupSteps ?? Math.floor(steps / 20), 0),
    steps,
    batchSize: integer("batchSize", recipe.batchSize ?? 64, 1),
    clipNorm: number("clipNorm", recipe.clipNorm ?? 1, 0),
    seed: seed64(recipe.seed ?? 0n),
    earlyExit: {
      layers: exit.layers.map((layer) => integer("earlyExit.layers", layer, 0, layers - 1)),
      weight: number("earlyExit.weight", exit.weight, 0),
    },
    dtype: loadDType({ dtype: recipe.dtype ?? "float32" }, "float32"),
    checkpointEvery: integer("checkpointEvery", recipe.checkpointEvery ?? 500, 1),
    recompute: recipe.recompute ?? false,
  };
}
