import { join } from "node:path";
import { type Command, Option } from "commander";
import {
  type Fuser,
  type FuserRecipe,
  loadModel,
  type Model,
  type Pair,
  type TrainEvent,
  trainFuser,
} from "../index.js";
import { modelState } from "../model/state.js";
import { type DataOptions, openData, type TrainingData } from "./data.js";
import { Progress } from "./progress.js";
import { parseFuserRecipe, readRecipe } from "./recipe.js";
import { parseSource, withProgress } from "./sources.js";
import { TrainOutput } from "./train-output.js";
import { addTrainingOptions, interruptible, makeFolder, share } from "./training-options.js";
import { Interrupt, Pace, TrainingLog } from "./training-run.js";

/** The seed of a recipe that names none. */
const SEED = 42n;

interface TrainFlags {
  readonly receiver: string;
  readonly sharer: string;
  readonly data: readonly string[];
  readonly dataFormat?: NonNullable<DataOptions["format"]>;
  readonly out: string;
  readonly recipe?: string;
  readonly validation: number;
  readonly window: number;
  readonly format: "native" | "reference";
  readonly resume?: boolean;
  readonly json?: boolean;
}

/** `train`: a fuser for a receiver and a sharer. Ctrl-C leaves a checkpoint that `--resume` continues. */
export function addTrain(program: Command): void {
  addTrainingOptions(program.command("train").description("train a fuser for a receiver and a sharer"))
    .requiredOption("--receiver <source>", "the model that answers: a folder or owner/name[@revision][:folder]")
    .requiredOption("--sharer <source>", "the model whose cache is fused in")
    .option("--validation <share>", "the share of the data that is held out, at most 200 items", share, 0.01)
    .addOption(
      new Option("--format <format>", "how the fuser is written").choices(["native", "reference"]).default("native"),
    )
    .action(async (flags: TrainFlags) => {
      const written = parseFuserRecipe(flags.recipe === undefined ? {} : await readRecipe(flags.recipe));
      await makeFolder(flags.out);
      const output = new TrainOutput(flags.out);
      const log = await TrainingLog.open(flags.out, flags.resume === true);
      if (flags.resume !== true || !(await output.finished())) {
        const ended = await interruptible(flags, () => train(flags, written, output, log));
        if (ended === null) return;
      }
      await log.chart(join(flags.out, "training.svg"), "Fuser training");
      await output.close();
      const step = log.last("step");
      const ended = {
        type: "done",
        folder: flags.out,
        format: flags.format,
        loss: step?.loss ?? null,
        openGates: step?.openGates ?? null,
        validation: log.last("validation")?.loss ?? null,
      };
      const figures = ["loss", "validation"] as const;
      const losses = figures.flatMap((name) => (ended[name] === null ? [] : [`${name} ${ended[name].toFixed(4)}`]));
      console.log(flags.json ? JSON.stringify(ended) : `${flags.out}: ${losses.join(", ")}; curves in training.svg`);
    });
}

/** Reads the data, loads both models, trains, and puts the fuser into the output folder. */
async function train(flags: TrainFlags, written: FuserRecipe, output: TrainOutput, log: TrainingLog): Promise<true> {
  using interrupt = new Interrupt();
  const { signal } = interrupt;
  const data = await openData({
    files: flags.data,
    ...(flags.dataFormat ? { format: flags.dataFormat } : {}),
    seed: written.seed ?? SEED,
    shuffle: written.shuffle ?? true,
    window: flags.window,
    validation: flags.validation,
  });
  if (data.skipped > 0) console.error(`${data.skipped} rows without a reply are left out`);
  const load = (text: string): Promise<Model> =>
    withProgress(text, (onProgress) => loadModel(parseSource(text), { signal, onProgress }));
  await using receiver = await load(flags.receiver);
  await using sharer = await load(flags.sharer);
  const recipe = complete(written, data, { receiver, sharer });
  const events = trainFuser({ receiver, sharer }, data, recipe, {
    folder: output.run,
    resume: flags.resume === true,
    validation: data.validation,
    signal,
  });
  await follow(events, recipe.maxSteps, log, flags.json === true, (fuser) => output.publish(fuser, flags.format));
  return true;
}

/** What a recipe leaves open and the data and the models decide: how many steps there are, and how tokens are aligned. */
function complete(recipe: FuserRecipe, data: TrainingData, { receiver, sharer }: Pair) {
  const { epochs = 1, batchSize = 4, accumulate = 8 } = recipe;
  const same = modelState(receiver).tokenizer.vocabulary === modelState(sharer).tokenizer.vocabulary;
  return {
    align: same ? "same" : "first",
    maxSteps: Math.ceil((data.count * epochs) / (batchSize * accumulate)),
    seed: SEED,
    ...recipe,
    // The data is mixed by its reader.
    shuffle: false,
  } as const;
}

async function follow(
  events: AsyncIterable<TrainEvent>,
  steps: number,
  log: TrainingLog,
  json: boolean,
  done: (fuser: Fuser) => Promise<void>,
): Promise<void> {
  using bar = new Progress();
  const pace = new Pace();
  try {
    for await (const event of events) {
      if (event.type === "done") {
        await using fuser = event.fuser;
        await done(fuser);
        break;
      }
      if (json) console.log(JSON.stringify(event));
      if (event.type === "checkpoint") continue;
      await log.add(event);
      if (event.type === "validation") continue;
      const parts = [
        `loss ${event.loss.toFixed(3)}`,
        `${event.openGates} open gates`,
        `${Math.round(event.tokensPerSecond).toLocaleString("en")} tokens/s`,
        pace.left(event.step + 1, steps),
      ];
      bar.show(parts.filter((part) => part !== "").join(" · "), (event.step + 1) / steps);
    }
  } finally {
    await log.flush();
  }
}
