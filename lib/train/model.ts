import { copyFile, readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ModelTrainerSpec, NativeModelTrainer, TensorTable } from "../../typings/native.js";
import { untilAborted } from "../abort.js";
import { ioError } from "../errors.js";
import { newModelConfig, readModelConfig } from "../model/config.js";
import { run, sync, trainingNative } from "../native.js";
import { invalid } from "../options.js";
import { writeAtomic } from "../weights/atomic.js";
import { isObject, parseObject, readText } from "../weights/file.js";
import { writeSafetensors } from "../weights/safetensors.js";
import {
  checkRecipe,
  newestCheckpoint,
  openRun,
  type RunRecord,
  readRecord,
  removeCheckpoints,
  stateTable,
  stateTensors,
  writeCheckpoint,
  writeRecord,
} from "./checkpoint.js";
import { type Document, documentBatch } from "./documents.js";
import { type CheckedModelRecipe, checkModelRecipe, type ModelRecipe } from "./model-recipe.js";
import { linearSchedule } from "./schedule.js";
import { type Data, Stream } from "./stream.js";

export type { Document } from "./documents.js";
export type { ModelRecipe } from "./model-recipe.js";

/** What begins a training run: a new model (`config` is a config.json's content, `tokenizer` a folder with tokenizer files), or a model's folder. */
export type ModelInit = { readonly config: unknown; readonly tokenizer?: string } | { readonly folder: string };

/** `loss` of the step's batch, mean per target token; `gradNorm` before clipping; `tokensPerSecond` counts every token read. */
export type ModelTrainEvent =
  | {
      readonly type: "step";
      readonly step: number;
      readonly loss: number;
      readonly gradNorm: number;
      readonly learningRate: number;
      readonly tokensPerSecond: number;
    }
  | { readonly type: "checkpoint"; readonly step: number; readonly folder: string }
  | { readonly type: "done"; readonly folder: string };

const WEIGHTS = "model.safetensors";
const CONFIG = "config.json";
const TOKENIZER = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "chat_template.json",
  "generation_config.json",
];
/** What a run may be continued with in another value: neither shapes the steps that were taken. */
const FREE = ["steps", "checkpointEvery"];

/**
 * Trains a decoder of any supported family on token documents, from new weights or from a model's. `folder` receives checkpoints (each a
 * model folder by itself) and in the end config.json, model.safetensors (float32) and the tokenizer's files; nothing is there half-written.
 * `resume` goes on from the newest checkpoint, with the same numbers as a run without interruption (data is pulled again up to there),
 * and begins anew where there is none. Data that ends begins again.
 * Errors, from the iterator: OPTION_INVALID, UNSUPPORTED, FILE_INVALID, IO_FAILED, SHAPE_MISMATCH, OUT_OF_MEMORY; an abort throws
 * `signal.reason` between blocks of the decoder, after a checkpoint of the steps taken.
 */
export async function* trainModel(
  init: ModelInit,
  data: Data<Document>,
  recipe: ModelRecipe,
  options: { readonly folder: string; readonly resume?: boolean; readonly signal?: AbortSignal },
): AsyncGenerator<ModelTrainEvent, void, undefined> {
  const { signal, resume = false } = options;
  signal?.throwIfAborted();
  const start = await readInit(init);
  const checked = checkModelRecipe(recipe, start.spec.layers.length);
  const identity = { ...checked, seed: String(checked.seed) };
  const folder = await openRun(options.folder);
  const checkpoint = await newestCheckpoint(folder);
  if (checkpoint && !resume) throw invalid("folder", `${folder} holds an unfinished run: resume it or remove it`);
  const state = resume ? await readRecord(checkpoint ?? folder) : null;
  if (state) checkRecipe(state.recipe, identity, FREE);
  if (state?.finished && state.step >= checked.steps) {
    yield { type: "done", folder };
    return;
  }
  const trainer = await run(signal, () =>
    trainingNative().createModelTrainer(start.spec, trainerSpec(checked, start.initRange)),
  );
  const stream = new Stream(data);
  const done = checkpoint && state ? state.step : 0;
  const fill = (to: string) => writeModel(to, start, trainer);
  const record = (step: number, finished: boolean): RunRecord => ({ step, finished, recipe: identity });
  let taken = done;
  let kept = done;
  try {
    if (checkpoint && state) {
      const table = await stateTable(checkpoint, WEIGHTS);
      await run(signal, () => trainer.restore(table, done));
    } else if (start.table) {
      const { table } = start;
      await run(signal, () => trainer.load(table));
    }
    for (let skipped = 0; skipped < done * checked.batchSize; skipped++) await untilAborted(stream.next(), signal);
    for (let step = done; step < checked.steps; step++) {
      const began = performance.now();
      const documents: Document[] = [];
      while (documents.length < checked.batchSize) documents.push(await untilAborted(stream.next(), signal));
      const batch = documentBatch(documents, start.spec.vocab, start.spec.context);
      const loss = await run(signal, (cancel) => trainer.accumulate(batch, cancel));
      const learningRate = linearSchedule(step, checked.learningRate, checked.warmupSteps, checked.steps);
      const gradNorm = await run(signal, () => trainer.update(learningRate));
      const tokensPerSecond = (batch.tokens.length * 1000) / (performance.now() - began);
      taken = step + 1;
      yield { type: "step", step, loss, gradNorm, learningRate, tokensPerSecond };
      if (taken % checked.checkpointEvery === 0 && taken < checked.steps) {
        const written = await writeCheckpoint(folder, record(taken, false), trainer, fill);
        kept = taken;
        yield { type: "checkpoint", step: taken, folder: written };
      }
    }
    await writeModel(folder, start, trainer);
    await writeRecord(folder, record(checked.steps, true));
    await removeCheckpoints(folder);
    yield { type: "done", folder };
  } catch (error) {
    // Whole steps are kept: a cancelled one has touched gradients alone.
    if (signal?.aborted && taken > kept && taken < checked.steps)
      await writeCheckpoint(folder, record(taken, false), trainer, fill);
    throw error;
  } finally {
    const closing = stream.close();
    // Data that hangs must not keep an aborted run from ending.
    if (signal?.aborted) closing.catch(() => undefined);
    else await closing;
    sync(() => trainer.dispose());
  }
}

interface Start {
  readonly spec: Parameters<ReturnType<typeof trainingNative>["createModelTrainer"]>[0];
  readonly initRange: number;
  /** The weights to begin with; null: new ones. */
  readonly table: TensorTable | null;
  /** config.json's text. */
  readonly config: string;
  /** The folder that tokenizer files are copied from; null: none. */
  readonly tokenizer: string | null;
}

async function readInit(init: ModelInit): Promise<Start> {
  if ("folder" in init) {
    const { spec, table } = await readModelConfig(init.folder);
    const config = await readText(join(init.folder, CONFIG));
    const plain = { ...parseObject(config, CONFIG), dtype: "float32", torch_dtype: "float32" };
    return { spec, initRange: 0.02, table, config: jsonText(plain), tokenizer: init.folder };
  }
  if (!isObject(init.config)) throw invalid("config", "must be the content of a config.json");
  const { spec, initRange } = newModelConfig(init.config, "config");
  const tokenizer = init.tokenizer === undefined ? null : await tokenizerFolder(init.tokenizer);
  const config = { ...init.config, dtype: "float32", torch_dtype: "float32" };
  return { spec, initRange, table: null, config: jsonText(config), tokenizer };
}

function jsonText(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** A folder, or the folder of a tokenizer.json. */
async function tokenizerFolder(path: string): Promise<string> {
  try {
    return (await stat(path)).isDirectory() ? path : dirname(path);
  } catch (error) {
    throw ioError(error, path, "open");
  }
}

function trainerSpec(recipe: CheckedModelRecipe, initRange: number): ModelTrainerSpec {
  const { betas, weightDecay, clipNorm, dtype, earlyExit, recompute, seed } = recipe;
  return {
    beta1: betas[0],
    beta2: betas[1],
    eps: 1e-8,
    weightDecay,
    clipNorm,
    dtype,
    exitLayers: Uint32Array.from(earlyExit.layers),
    exitWeight: earlyExit.weight,
    recompute,
    seed,
    initRange,
  };
}

/** Writes a model folder's files, the weights last: without them it is no model folder. Errors: IO_FAILED. */
async function writeModel(folder: string, { config, tokenizer }: Start, trainer: NativeModelTrainer): Promise<void> {
  await writeAtomic(join(folder, CONFIG), config);
  if (tokenizer !== null) {
    try {
      const present = await readdir(tokenizer);
      for (const name of TOKENIZER.filter((file) => present.includes(file)))
        await copyFile(join(tokenizer, name), join(folder, name));
    } catch (error) {
      throw ioError(error, tokenizer, "copy");
    }
  }
  const tensors = stateTensors(trainer, "value", (name) => name);
  await writeSafetensors(join(folder, WEIGHTS), tensors, { format: "pt" });
}
