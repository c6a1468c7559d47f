import { lastAligned, nearest } from "../fuser/layer-map.js";
import { c2c } from "../fuser/projectors/c2c.js";
import { projectorKind, projectorOptions } from "../fuser/projectors/index.js";
import { choice, integer, invalid, loadDType } from "../options.js";
import type { AlignStrategy, FuserRecipe, Pair } from "../types.js";
import { flag, number, seed64 } from "./options.js";

/** A fuser recipe, checked, defaults filled in. */
export interface CheckedFuserRecipe {
  readonly kind: string;
  /** Of the projectors, under the reference's names. */
  readonly options: Readonly<Record<string, number | boolean | string>>;
  /** Sharer layer by receiver layer; null: not fused. */
  readonly layerMap: readonly (number | null)[];
  readonly align: AlignStrategy;
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly betas: readonly [number, number];
  readonly clipNorm: number;
  readonly batchSize: number;
  readonly accumulate: number;
  readonly steps: number;
  readonly scheduleSteps: number;
  readonly warmupSteps: number;
  readonly maxTokens: number;
  readonly shuffle: "off" | "all" | "window";
  readonly response: boolean;
  readonly gumbel: boolean;
  readonly dtype: "float32" | "bfloat16";
  readonly recompute: boolean;
  readonly checkpointEvery: number;
  readonly validateEvery: number;
  readonly temperature: { readonly initial: number; readonly final: number; readonly steps: number };
  readonly seed: bigint;
}

/** What of a recipe an earlier fuser decides, where training starts from one. */
export interface Begun {
  readonly kind: string;
  readonly options: CheckedFuserRecipe["options"];
  readonly layerMap: readonly (number | null)[];
  readonly align: AlignStrategy;
}

const STRATEGIES = ["same", "first", "longest", "bytes"] as const;

/** `samples`: how many there are, where that is known. OPTION_INVALID or UNSUPPORTED for what cannot be trained with. */
export function checkFuserRecipe(
  recipe: FuserRecipe,
  pair: Pair,
  samples: number | null,
  begun: Begun | null,
): CheckedFuserRecipe {
  const batchSize = integer("batchSize", recipe.batchSize ?? 4, 1);
  const accumulate = integer("accumulate", recipe.accumulate ?? 8, 1);
  const epochs = number("epochs", recipe.epochs ?? 1, 0);
  const most = recipe.maxSteps === undefined ? null : integer("maxSteps", recipe.maxSteps, 1);
  const inData = samples === null ? null : Math.ceil((samples * epochs) / (batchSize * accumulate));
  const steps = most ?? inData;
  if (steps === null) throw invalid("maxSteps", "must be given where the data's length is not known");
  const scheduleSteps = integer("scheduleSteps", recipe.scheduleSteps ?? steps, 1);
  const ratio = number("warmupRatio", recipe.warmupRatio ?? 0.1, 0, 1);
  const { initial = 1, final = 0.001, steps: anneal = steps } = recipe.temperature ?? {};
  const temperature = {
    initial: positive("temperature.initial", initial),
    final: positive("temperature.final", final),
    steps: integer("temperature.steps", anneal, 1),
  };
  const [beta1, beta2] = recipe.betas ?? [0.9, 0.999];
  return {
    ...(begun ?? fresh(recipe, pair, temperature)),
    learningRate: number("learningRate", recipe.learningRate ?? 1e-4, 0),
    weightDecay: number("weightDecay", recipe.weightDecay ?? 0.01, 0),
    betas: [number("betas", beta1, 0, 1 - 1e-9), number("betas", beta2, 0, 1 - 1e-9)],
    clipNorm: number("clipNorm", recipe.clipNorm ?? 1, 0),
    batchSize,
    accumulate,
    steps,
    scheduleSteps,
    warmupSteps: integer("warmupSteps", recipe.warmupSteps ?? Math.floor(ratio * scheduleSteps), 0),
    maxTokens: integer("maxTokens", recipe.maxTokens ?? 2048, 2),
    shuffle: shuffling(recipe.shuffle, samples !== null),
    response: choice("span", recipe.span ?? "prompt", ["prompt", "prompt-and-response"]) !== "prompt",
    gumbel: flag("gumbel", recipe.gumbel ?? true),
    dtype: loadDType({ dtype: recipe.dtype ?? pair.receiver.dtype }, "float32"),
    recompute: flag("recompute", recipe.recompute ?? false),
    checkpointEvery: integer("checkpointEvery", recipe.checkpointEvery ?? 500, 1),
    validateEvery: integer("validateEvery", recipe.validateEvery ?? 100, 1),
    temperature,
    seed: seed64(recipe.seed ?? 42n),
  };
}

function shuffling(wanted: boolean | undefined, known: boolean): CheckedFuserRecipe["shuffle"] {
  if (!flag("shuffle", wanted ?? known)) return "off";
  return known ? "all" : "window";
}

function positive(option: string, value: unknown): number {
  if (!(number(option, value, 0) > 0)) throw invalid(option, "must be above 0");
  return value as number;
}

/** A new fuser's shape. */
function fresh(recipe: FuserRecipe, pair: Pair, temperature: CheckedFuserRecipe["temperature"]): Begun {
  const { kind = c2c.class, options = {} } = recipe.projector ?? {};
  // What every recipe has, for the kinds that know it.
  const common = Object.entries({
    intermediate_dim: recipe.intermediate,
    initial_temperature: temperature.initial,
    final_temperature: temperature.final,
    anneal_steps: temperature.steps,
  }).filter(([name]) => name in projectorKind(kind).options);
  const given = {
    hidden_dim: recipe.hidden,
    num_layers: recipe.layers,
    dropout: recipe.dropout === undefined ? undefined : number("dropout", recipe.dropout, 0, 0.999),
    ...Object.fromEntries(common),
    ...options,
  };
  return {
    kind,
    options: projectorOptions(kind, given),
    layerMap: mapOf(recipe.layerMap ?? "last-aligned", pair),
    align: choice("align", recipe.align ?? "same", STRATEGIES),
  };
}

function mapOf(map: NonNullable<FuserRecipe["layerMap"]>, pair: Pair): readonly (number | null)[] {
  const receiver = pair.receiver.shape.layers;
  const sharer = pair.sharer.shape.layers;
  if (map === "last-aligned") return lastAligned(receiver, sharer, 1).map(([layer]) => layer ?? null);
  if (map === "nearest") return nearest(receiver, sharer, 1).map(([layer]) => layer ?? null);
  if (!Array.isArray(map) || map.length !== receiver)
    throw invalid(
      "layerMap",
      `must be last-aligned, nearest, or one sharer layer or null for each of ${receiver} layers`,
    );
  const layers = map.map((layer) => (layer === null ? null : integer("layerMap", layer, 0, sharer - 1)));
  if (layers.every((layer) => layer === null)) throw invalid("layerMap", "fuses no layer");
  return layers;
}
