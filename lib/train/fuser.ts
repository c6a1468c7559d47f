import { join } from "node:path";
import type { FuserTrainerSpec, NativeFuserTrainer } from "../../typings/native.js";
import { type FuserFolder, writeFuserFolder } from "../fuser/folder.js";
import { loadFuser, makeFuser } from "../fuser/fuser.js";
import { WEIGHTS, writeNative } from "../fuser/native-format.js";
import { fuserState } from "../fuser/state.js";
import { modelState } from "../model/state.js";
import { run, sync, trainingNative } from "../native.js";
import { invalid } from "../options.js";
import { temperature } from "../testing-support/temperature.js";
import type { Fuser, FuserRecipe, Pair, Sample, TrainEvent } from "../types.js";
import { fuserBatch } from "./batches.js";
import {
  checkRecipe,
  newestCheckpoint,
  openRun,
  type RunRecord,
  readRecord,
  removeCheckpoints,
  stateTable,
  writeCheckpoint,
  writeRecord,
} from "./checkpoint.js";
import { type Begun, type CheckedFuserRecipe, checkFuserRecipe } from "./fuser-recipe.js";
import { keepFolder, projectorsOf, readWeight, trainedFolder } from "./fuser-store.js";
import { MicroBatches } from "./micro-batches.js";
import { type PreparedSample, prepareSample, type Reader } from "./samples.js";
import { linearSchedule } from "./schedule.js";
import { Order } from "./shuffle.js";
import type { Data } from "./stream.js";

/** The finished fuser, in a run's folder. */
const FINAL = "final";
/** What a run may be continued with in another value: it does not shape the steps that were taken. */
const FREE = ["steps", "checkpointEvery", "validateEvery", "recompute"];

/** Where a training run begins, what it keeps and where. */
export interface TrainFuserOptions {
  /** A fuser to go on from; its kind, options and layer map hold. Default: new weights. */
  readonly init?: Fuser;
  /** Gets checkpoints (each a fuser's folder by itself) and in the end `final/`. Default: nothing is written. */
  readonly folder?: string;
  /** Goes on from the folder's newest checkpoint, with the same numbers as a run without interruption; begins anew where there is none. */
  readonly resume?: boolean;
  /** Samples for the validation loss, as in inference: hard gates, no dropout. */
  readonly validation?: readonly Sample[];
  /** Raised: the iterator throws its reason, after a checkpoint where there is a folder. */
  readonly signal?: AbortSignal;
}

/**
 * Trains a fuser for two loaded models. Both stay as they are; the loss is the receiver's next-token loss on each sample's last message,
 * the mean over a batch's tokens. Samples are pulled one micro-batch ahead, no more; data that ends begins again.
 * Errors, from the iterator: OPTION_INVALID, UNSUPPORTED, SHAPE_MISMATCH, IO_FAILED, FILE_INVALID, DISPOSED, OUT_OF_MEMORY; an abort throws
 * `signal.reason` between layers, after a checkpoint of the steps taken where there is a folder.
 */
export async function* trainFuser(
  pair: Pair,
  data: Data<Sample>,
  recipe: FuserRecipe = {},
  options: TrainFuserOptions = {},
): AsyncGenerator<TrainEvent, void, undefined> {
  options.signal?.throwIfAborted();
  const receiver = modelState(pair.receiver, "pair.receiver");
  const sharer = modelState(pair.sharer, "pair.sharer");
  receiver.life.check();
  sharer.life.check();
  const begun = options.init === undefined ? null : begunFrom(options.init, recipe);
  const checked = checkFuserRecipe(recipe, pair, Array.isArray(data) ? data.length : null, begun?.shape ?? null);
  const training = new Run(pair, data, checked, options, begun?.folder ?? null);
  try {
    yield* training.events();
  } finally {
    await training.close();
  }
}

/** What an earlier fuser decides; a recipe that asks for another shape is OPTION_INVALID. */
function begunFrom(init: Fuser, recipe: FuserRecipe): { folder: FuserFolder; shape: Begun } {
  const { folder, life } = fuserState(init, "init");
  life.check();
  for (const key of ["hidden", "intermediate", "layers", "layerMap", "projector"] as const) {
    if (recipe[key] !== undefined) throw invalid(key, "is decided by `init`");
  }
  const [first] = folder.projectors;
  if (!first) throw invalid("init", "holds no projector");
  const options = recipe.dropout === undefined ? first.options : { ...first.options, dropout: recipe.dropout };
  return { folder, shape: { kind: first.kind, options, layerMap: init.layerMap, align: recipe.align ?? folder.align } };
}

class Run {
  readonly #pair: Pair;
  readonly #recipe: CheckedFuserRecipe;
  readonly #options: TrainFuserOptions;
  readonly #reader: Reader;
  readonly #batches: MicroBatches;
  readonly #init: FuserFolder | null;
  readonly #identity: Readonly<Record<string, unknown>>;
  #trainer: NativeFuserTrainer | null = null;

  constructor(
    pair: Pair,
    data: Data<Sample>,
    recipe: CheckedFuserRecipe,
    options: TrainFuserOptions,
    init: FuserFolder | null,
  ) {
    this.#pair = pair;
    this.#recipe = recipe;
    this.#options = options;
    this.#init = init;
    this.#identity = { ...recipe, seed: String(recipe.seed) };
    const { align: strategy, response, maxTokens, shuffle, seed, batchSize } = recipe;
    this.#reader = { pair, strategy, response, maxTokens };
    this.#batches = new MicroBatches(new Order(data, shuffle, seed), this.#reader, batchSize, options.signal);
  }

  async close(): Promise<void> {
    await this.#batches.close();
    const trainer = this.#trainer;
    if (trainer) sync(() => trainer.dispose());
  }

  async *events(): AsyncGenerator<TrainEvent, void, undefined> {
    const { signal, resume = false } = this.#options;
    const recipe = this.#recipe;
    const folder = this.#options.folder === undefined ? null : await openRun(this.#options.folder);
    if (resume && folder === null) throw invalid("resume", "needs a folder");
    const checkpoint = folder === null ? null : await newestCheckpoint(folder);
    if (checkpoint && !resume) throw invalid("folder", `${folder} holds an unfinished run: resume it or remove it`);
    const state = resume && folder !== null ? await readRecord(checkpoint ?? folder) : null;
    if (state) checkRecipe(state.recipe, this.#identity, FREE);
    if (state?.finished && folder !== null && state.step >= recipe.steps) {
      yield { type: "done", fuser: await loadFuser({ kind: "folder", path: join(folder, FINAL) }, this.#pair) };
      return;
    }
    const trainer = await this.#begin();
    this.#trainer = trainer;
    const done = checkpoint && state ? state.step : 0;
    if (checkpoint && state) {
      const table = await stateTable(checkpoint, WEIGHTS);
      await run(signal, () => trainer.restore(table, done));
      await this.#batches.skip(state.pulled ?? 0, state.skipped ?? 0);
    }
    const contents = trainedFolder(this.#pair, recipe, { cacheToCache: this.#identity }, trainer);
    yield* this.#steps(trainer, done, folder, contents);
    if (folder === null) {
      const dtype = this.#pair.receiver.dtype === "bfloat16" ? "bfloat16" : "float32";
      const loaded = await run(signal, () => trainer.fuser(dtype));
      yield { type: "done", fuser: makeFuser(this.#pair, await keepFolder(contents), loaded) };
      return;
    }
    const final = join(folder, FINAL);
    await writeFuserFolder(contents, final, "native");
    await writeRecord(folder, this.#record(recipe.steps, true));
    await removeCheckpoints(folder);
    yield { type: "done", fuser: await loadFuser({ kind: "folder", path: final }, this.#pair) };
  }

  /** Steps from `done` to the recipe's last, with validations and checkpoints between them. */
  async *#steps(
    trainer: NativeFuserTrainer,
    done: number,
    folder: string | null,
    contents: FuserFolder,
  ): AsyncGenerator<TrainEvent, void, undefined> {
    const { steps, checkpointEvery, validateEvery } = this.#recipe;
    const { signal, validation: samples = [] } = this.#options;
    const read = await Promise.all(samples.map((sample) => prepareSample(sample, this.#reader)));
    const validation = read.filter((sample) => sample !== null);
    const fill = (to: string) => writeNative(contents, to);
    let record = this.#record(done, false);
    let kept = done;
    try {
      for (let step = done; step < steps; step++) {
        const event = await this.#step(trainer, step);
        const taken = step + 1;
        record = this.#record(taken, false);
        yield event;
        if (validation.length > 0 && (taken === steps || taken % validateEvery === 0))
          yield { type: "validation", step: taken, loss: await this.#validate(trainer, validation) };
        if (folder !== null && taken < steps && taken % checkpointEvery === 0) {
          const written = await writeCheckpoint(folder, record, trainer, fill);
          kept = taken;
          yield { type: "checkpoint", step: taken, folder: written };
        }
      }
    } catch (error) {
      // Whole steps are kept: a cancelled one has touched gradients alone.
      if (signal?.aborted && folder !== null && record.step > kept && record.step < steps)
        await writeCheckpoint(folder, record, trainer, fill);
      throw error;
    }
  }

  #record(step: number, finished: boolean): RunRecord {
    const { pulled, skipped } = this.#batches;
    return { step, finished, recipe: this.#identity, pulled, skipped };
  }

  async #begin(): Promise<NativeFuserTrainer> {
    const { signal } = this.#options;
    const recipe = this.#recipe;
    const spec: FuserTrainerSpec = {
      beta1: recipe.betas[0],
      beta2: recipe.betas[1],
      eps: 1e-8,
      weightDecay: recipe.weightDecay,
      clipNorm: recipe.clipNorm,
      dtype: recipe.dtype,
      gumbel: recipe.gumbel,
      recompute: recipe.recompute,
      seed: recipe.seed,
      projectors: projectorsOf(recipe),
    };
    const { receiver, sharer } = this.#pair;
    const models = [modelState(receiver).native, modelState(sharer).native] as const;
    const trainer = await run(signal, () => trainingNative().createFuserTrainer(...models, spec));
    if (this.#init) await loadInit(trainer, this.#init, spec.projectors);
    return trainer;
  }

  async #step(trainer: NativeFuserTrainer, step: number): Promise<Extract<TrainEvent, { type: "step" }>> {
    const { signal } = this.#options;
    const recipe = this.#recipe;
    const { accumulate, seed } = recipe;
    const { steps: anneal, initial, final } = recipe.temperature;
    const began = performance.now();
    const heat = temperature(step, anneal, initial, final);
    let loss = 0;
    let tokens = 0;
    for (let micro = 0; micro < accumulate; micro++) {
      const more = micro + 1 < accumulate || step + 1 < recipe.steps;
      const batch = fuserBatch(await this.#batches.next(more));
      tokens += batch.receiver.tokens.length;
      const counter = step * accumulate + micro;
      const draw = { seed, counter, temperature: heat, scale: 1 / accumulate, noise: null };
      loss += (await run(signal, (cancel) => trainer.accumulate(batch, draw, cancel))) / accumulate;
    }
    const learningRate = linearSchedule(step, recipe.learningRate, recipe.warmupSteps, recipe.scheduleSteps);
    const gradNorm = await run(signal, () => trainer.update(learningRate));
    const logits = trainer.gates().flatMap(({ key, value }) => [key, value]);
    return {
      type: "step",
      step,
      loss,
      gradNorm,
      learningRate,
      temperature: heat,
      openGates: logits.filter((logit) => logit === null || logit > 0).length,
      tokensPerSecond: (tokens * 1000) / (performance.now() - began),
      skipped: this.#batches.skipped,
    };
  }

  /** The mean over all targets. */
  async #validate(trainer: NativeFuserTrainer, samples: readonly PreparedSample[]): Promise<number> {
    let sum = 0;
    let targets = 0;
    for (let first = 0; first < samples.length; first += this.#recipe.batchSize) {
      const batch = fuserBatch(samples.slice(first, first + this.#recipe.batchSize));
      const loss = await run(this.#options.signal, (cancel) => trainer.evaluate(batch, cancel));
      sum += loss * batch.targetIds.length;
      targets += batch.targetIds.length;
    }
    return sum / targets;
  }
}

/** Copies an earlier fuser's weights into a trainer whose projectors are numbered anew. */
async function loadInit(
  trainer: NativeFuserTrainer,
  init: FuserFolder,
  projectors: FuserTrainerSpec["projectors"],
): Promise<void> {
  for (const [i, { prefix }] of projectors.entries()) {
    const from = init.projectors[i]?.prefix ?? "";
    for (const { name } of trainer.parameters().filter((parameter) => parameter.name.startsWith(prefix))) {
      await run(undefined, async () => trainer.write(name, await readWeight(init, from + name.slice(prefix.length))));
    }
  }
}
