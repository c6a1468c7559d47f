import type { HeadShape, TensorTable } from "../typings/native.js";
import { alignTokens } from "./align/index.js";
import { lastAligned, nearest } from "./fuser/layer-map.js";
import { projectorOptions } from "./fuser/projectors/index.js";
import { modelState } from "./model/state.js";
import { checkTokens, tag } from "./model/tokens.js";
import { native, run, sync } from "./native.js";
import { choice, invalid } from "./options.js";
import { temperature } from "./testing-support/temperature.js";
import type { AlignStrategy, Model, Tokens } from "./types.js";

export type { HeadShape, TensorEntry, TensorTable } from "../typings/native.js";
export { extractAnswer } from "./evaluate/choices.js";
export { kvSections as segments } from "./testing-support/sections.js";
export { type TrainingSession, type TrainingSource, trainingSession } from "./testing-support/training.js";

/** One projector by itself: its class and options under the reference's names, and where its weights lie. */
export interface ProjectorSource {
  /** The class, under the reference's name. */
  readonly kind: string;
  /** Constructor arguments; what is left out has the class's default. */
  readonly options: Readonly<Record<string, number | boolean | string>>;
  /** Of the receiver's layer. */
  readonly receiver: HeadShape;
  /** Of the sharer's layer. */
  readonly sharer: HeadShape;
  /** Holds its weights. */
  readonly table: TensorTable;
  /** Tensor names are this and the state_dict key. */
  readonly prefix: string;
}

/** Rows [tokens, kvHeads, headDim] of one layer, float32. */
export interface ProjectorRows {
  /** Rotated. */
  readonly sharerKey: Float32Array;
  /** Of the same rows. */
  readonly sharerValue: Float32Array;
  /** Rotated. */
  readonly receiverKey: Float32Array;
  /** Of the same rows. */
  readonly receiverValue: Float32Array;
}

/** How a projector is run. */
export interface ProjectOptions {
  /** Uniform draws [tokens, kvHeads] for the key gate, then the value gate, as in training; default: inference. */
  readonly noise?: readonly Float32Array[];
  /** The gates', default 1. */
  readonly temperature?: number;
}

/** Runs one projector in float32 on `tokens` rows: the receiver's new keys and values. OPTION_INVALID, SHAPE_MISMATCH, UNSUPPORTED. */
export async function project(
  source: ProjectorSource,
  rows: ProjectorRows,
  tokens: number,
  options: ProjectOptions = {},
): Promise<{ key: Float32Array; value: Float32Array }> {
  const { kind, receiver, sharer, table, prefix } = source;
  for (const [name, side] of Object.entries({
    sharerKey: sharer,
    sharerValue: sharer,
    receiverKey: receiver,
    receiverValue: receiver,
  })) {
    const given = rows[name as keyof ProjectorRows];
    if (given.length !== tokens * side.kvHeads * side.headDim) {
      throw invalid(name, `must hold ${tokens} rows of ${side.kvHeads} × ${side.headDim} values`);
    }
  }
  const projector = { kind, receiverLayer: 0, sharerLayer: 0, options: projectorOptions(kind, source.options), prefix };
  const spec = { dtype: "float32", device: { kind: "cpu" }, receiver, sharer, projectors: [projector] } as const;
  const own = { files: table.files, tensors: table.tensors.filter(({ name }) => name.startsWith(prefix)) };
  const fuser = await run(undefined, (cancel) => native().loadFuser(spec, own, cancel));
  try {
    return await run(undefined, () => fuser.project(0, rows, tokens, options.noise ?? null, options.temperature ?? 1));
  } finally {
    sync(() => fuser.dispose());
  }
}

/** For each of `receiver` layers, `k` sharer layers out of `sharer`, best first. */
export function layerMap(kind: "last-aligned" | "nearest", receiver: number, sharer: number, k = 1): number[][] {
  return choice("kind", kind, ["last-aligned", "nearest"]) === "nearest"
    ? nearest(receiver, sharer, k)
    : lastAligned(receiver, sharer, k);
}

/** The gate temperature after `step` optimiser steps of a schedule of `steps`. */
export function temperatureAt(
  step: number,
  schedule: { readonly initial: number; readonly final: number; readonly steps: number },
): number {
  return temperature(step, schedule.steps, schedule.initial, schedule.final);
}

/** A plain sequence of the receiver's tokens as the sharer reads it, one for one. TOKENS_FOREIGN, OPTION_INVALID. */
export async function alignSequence(
  receiver: Model,
  sharer: Model,
  tokens: Tokens,
  strategy: AlignStrategy,
): Promise<Tokens> {
  const own = modelState(receiver, "receiver").tokenizer;
  const other = modelState(sharer, "sharer").tokenizer;
  const ids = checkTokens(tokens, own.vocabulary, receiver.shape.vocab);
  return tag(Uint32Array.from(await alignTokens(own, other, ids, strategy)), other.vocabulary);
}

/**
 * How many native objects of each kind JavaScript holds now: 0 of models, fusers and caches once all are disposed of. Samplers
 * and cancel flags have no `dispose`; they go when they are collected.
 */
export function liveHandles(): Readonly<Record<"model" | "fuser" | "cache" | "sampler" | "cancel", number>> {
  return sync(() => native().liveHandles());
}
