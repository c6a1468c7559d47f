import type { FuserTrainerSpec, TensorTable } from "../../typings/native.js";
import { lastAligned, nearest } from "../fuser/layer-map.js";
import { projectorOptions } from "../fuser/projectors/index.js";
import { modelState } from "../model/state.js";
import { run, sync, trainingNative } from "../native.js";
import { fuserBatch } from "../train/batches.js";
import { projectorsOf } from "../train/fuser-store.js";
import { type PreparedSample, prepareSample } from "../train/samples.js";
import type { AlignStrategy, Pair, Sample } from "../types.js";

/** What is trained, and how. */
export interface TrainingSource {
  /** The projector's class under the reference's name. */
  readonly kind: string;
  /** What is left out has the class's default. */
  readonly options: Readonly<Record<string, number | boolean | string>>;
  /** Which sharer layer feeds which receiver layer. */
  readonly layerMap: "last-aligned" | "nearest";
  /** How tokens are aligned. */
  readonly align: AlignStrategy;
  /** Soft gates with noise; else hard ones. */
  readonly gumbel: boolean;
  /** AdamW's. */
  readonly betas: readonly [number, number];
  /** AdamW's. */
  readonly eps: number;
  /** AdamW's, on all weights. */
  readonly weightDecay: number;
  /** The L2 norm that gradients are clipped to; 0: off. */
  readonly clipNorm: number;
}

/** Steps of training one by one, with given draws and open state. Weights are called projector_N.KEY. */
export interface TrainingSession extends AsyncDisposable {
  /** For each sample, how many rows are fused in each of its fused runs. */
  fusedRows(samples: readonly Sample[]): Promise<number[][]>;
  /**
   * Adds the gradients of the batch's loss times `scale`; returns the loss. `noise`: uniform draws [rows, kvHeads], key then value of each
   * projector, fused section after fused section.
   */
  accumulate(
    samples: readonly Sample[],
    options: { readonly temperature: number; readonly scale: number; readonly noise?: readonly Float32Array[] },
  ): Promise<number>;
  /** A weight's gradient so far, row-major. */
  gradient(name: string): Promise<Float32Array>;
  /** A weight's values, row-major. */
  weight(name: string): Promise<Float32Array>;
  /** One optimiser step; returns the gradients' norm before clipping. */
  update(learningRate: number): Promise<number>;
}

/** Training in float32 from given weights: tensors PREFIX(projector) + KEY of a table. OPTION_INVALID, SHAPE_MISMATCH, FILE_INVALID. */
export async function trainingSession(
  pair: Pair,
  source: TrainingSource,
  init: { readonly table: TensorTable; readonly prefix: (projector: number) => string },
): Promise<TrainingSession> {
  const layers = (source.layerMap === "nearest" ? nearest : lastAligned)(
    pair.receiver.shape.layers,
    pair.sharer.shape.layers,
    1,
  );
  const projectors = projectorsOf({
    kind: source.kind,
    options: projectorOptions(source.kind, source.options),
    layerMap: layers.map(([layer]) => layer ?? null),
  });
  const spec: FuserTrainerSpec = {
    beta1: source.betas[0],
    beta2: source.betas[1],
    eps: source.eps,
    weightDecay: source.weightDecay,
    clipNorm: source.clipNorm,
    dtype: "float32",
    gumbel: source.gumbel,
    recompute: false,
    seed: 0n,
    projectors,
  };
  const models = [modelState(pair.receiver, "receiver").native, modelState(pair.sharer, "sharer").native] as const;
  const trainer = await run(undefined, () => trainingNative().createFuserTrainer(...models, spec));
  const tensors = projectors.flatMap(({ prefix: own }, i) => {
    const prefix = init.prefix(i);
    const named = init.table.tensors.filter(
      ({ name }) => name.startsWith(prefix) && !name.endsWith("gate_temperature"),
    );
    return named.map((entry) => ({ ...entry, name: own + entry.name.slice(prefix.length) }));
  });
  await run(undefined, () => trainer.load({ files: init.table.files, tensors }));
  const reader = { pair, strategy: source.align, response: false, maxTokens: Number.MAX_SAFE_INTEGER };
  const prepare = async (samples: readonly Sample[]): Promise<PreparedSample[]> => {
    const prepared = await Promise.all(samples.map((sample) => prepareSample(sample, reader)));
    return prepared.filter((sample) => sample !== null);
  };
  return {
    fusedRows: async (samples) =>
      (await prepare(samples)).map(({ fused }) => fused.map(({ receiver }) => receiver.end - receiver.start)),
    accumulate: async (samples, { temperature, scale, noise = null }) => {
      const batch = fuserBatch(await prepare(samples));
      return run(undefined, () => trainer.accumulate(batch, { seed: 0n, counter: 0, temperature, scale, noise }, null));
    },
    gradient: (name) => run(undefined, () => trainer.read("gradient", name)),
    weight: (name) => run(undefined, () => trainer.read("value", name)),
    update: (learningRate) => run(undefined, () => trainer.update(learningRate)),
    [Symbol.asyncDispose]: async () => sync(() => trainer.dispose()),
  };
}
