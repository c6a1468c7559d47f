import { join } from "node:path";
import { type Command, Option } from "commander";
import { trainBpe, writeTokenizer } from "../bpe/index.js";
import { type LossOn, readDocuments, readTexts } from "../data/documents.js";
import { readRows } from "../data/rows.js";
import type { DataFormat } from "../data/samples.js";
import { shuffled } from "../data/shuffle.js";
import { type Document, type ModelRecipe, type ModelTrainEvent, trainModel } from "../index.js";
import { invalid } from "../options.js";
import { Tokenizer } from "../tokens/tokenizer.js";
import { readTextIfThere } from "../weights/file.js";
import { Progress } from "./progress.js";
import { parseModelRecipe, readRecipe } from "./recipe.js";
import { addTrainingOptions, count, interruptible, makeFolder } from "./training-options.js";
import { Interrupt, Pace, TrainingLog } from "./training-run.js";

interface TrainModelFlags {
  readonly config?: string;
  readonly model?: string;
  readonly tokenizer?: string;
  readonly trainTokenizer?: number | true;
  readonly data: readonly string[];
  readonly dataFormat?: DataFormat;
  readonly out: string;
  readonly recipe?: string;
  readonly steps?: number;
  readonly loss: LossOn;
  readonly window: number;
  readonly resume?: boolean;
  readonly json?: boolean;
}

/** `train-model`: a decoder from a config.json, or one that is continued. Ctrl-C leaves a checkpoint that `--resume` continues. */
export function addTrainModel(program: Command): void {
  addTrainingOptions(program.command("train-model").description("train a decoder from scratch, or continue one"))
    .option("--config <file>", "config.json of a new model; missing token numbers are taken from the tokenizer")
    .option("--model <folder>", "a model to continue, with its tokenizer")
    .option("--tokenizer <folder>", "tokenizer of a new model")
    .option(
      "--train-tokenizer [tokens]",
      "make a byte-level BPE tokenizer of so many tokens from the data (default 8192)",
      count,
    )
    .option("--steps <n>", "optimiser steps; overrides the recipe's", count)
    .addOption(
      new Option("--loss <on>", "what is learned of conversations").choices(["all", "answers"]).default("answers"),
    )
    .action(async (flags: TrainModelFlags) => {
      const written = flags.recipe === undefined ? {} : await readRecipe(flags.recipe);
      const recipe = parseModelRecipe(flags.steps === undefined ? written : { ...written, steps: flags.steps });
      if ((flags.config === undefined) === (flags.model === undefined))
        throw invalid("config", "give --config or --model, one of them");
      await makeFolder(flags.out);
      const { folder, tokenizer } = await openTokenizer(flags);
      const config = flags.config === undefined ? null : await completeConfig(flags.config, tokenizer);
      const context = contextOf(config ?? (await readRecipe(join(folder, "config.json"))));
      const log = await TrainingLog.open(flags.out, flags.resume === true);
      using interrupt = new Interrupt();
      const events = trainModel(
        config === null ? { folder } : { config, tokenizer: folder },
        documents(flags, tokenizer, context, recipe.seed ?? 0n),
        recipe,
        { folder: flags.out, resume: flags.resume === true, signal: interrupt.signal },
      );
      const ended = await interruptible(flags, () => follow(events, recipe, log, flags));
      if (ended === null) return;
      await log.chart(join(flags.out, "training.svg"), "Model training");
      console.log(
        flags.json
          ? JSON.stringify(ended)
          : `${flags.out}: loss ${ended.loss?.toFixed(4) ?? "unknown"}; curve in training.svg`,
      );
    });
}

/** The tokenizer to use, and its folder: made from the data where that is asked for (a resumed run keeps the one it made). */
async function openTokenizer(
  flags: TrainModelFlags,
): Promise<{ readonly folder: string; readonly tokenizer: Tokenizer }> {
  const given = flags.model ?? flags.tokenizer;
  if (flags.trainTokenizer === undefined) {
    if (given === undefined) throw invalid("tokenizer", "give --tokenizer or --train-tokenizer");
    return { folder: given, tokenizer: await Tokenizer.load(given) };
  }
  if (given !== undefined) throw invalid("trainTokenizer", "stands instead of a tokenizer that is there");
  const made = flags.resume && (await readTextIfThere(join(flags.out, "tokenizer.json"))) !== null;
  if (!made) {
    const vocab = flags.trainTokenizer === true ? 8192 : flags.trainTokenizer;
    await writeTokenizer(flags.out, await trainBpe(texts(flags), { vocab }));
  }
  return { folder: flags.out, tokenizer: await Tokenizer.load(flags.out) };
}

async function* texts({ data, dataFormat: format }: TrainModelFlags): AsyncGenerator<string, void> {
  for (const file of data) yield* readTexts(readRows(file), { file, ...(format ? { format } : {}) });
}

/** Fills in the vocabulary's size and the end and padding tokens, which only the tokenizer knows, where the config leaves them out. */
async function completeConfig(path: string, tokenizer: Tokenizer): Promise<Readonly<Record<string, unknown>>> {
  const config = await readRecipe(path);
  const size = config["vocab_size"];
  if (typeof size === "number" && size < tokenizer.size) {
    throw invalid("config", `vocab_size ${size} is below the tokenizer's ${tokenizer.size} tokens`);
  }
  const { eos, pad } = tokenizer.specials;
  return {
    vocab_size: tokenizer.size,
    ...(eos === null ? {} : { eos_token_id: eos }),
    ...(pad === null ? {} : { pad_token_id: pad }),
    ...config,
  };
}

function contextOf(config: Readonly<Record<string, unknown>>): number {
  const context = config["max_position_embeddings"];
  return typeof context === "number" && context > 1 ? context : 2048;
}

/** All files, pass after pass, each pass in another order that depends on the seed and its number alone. */
async function* documents(
  flags: TrainModelFlags,
  tokenizer: Tokenizer,
  maxTokens: number,
  seed: bigint,
): AsyncGenerator<Document, void> {
  const { data, dataFormat: format, loss, window } = flags;
  async function* once(): AsyncGenerator<Document, void> {
    const options = { loss, maxTokens, ...(format ? { format } : {}) };
    for (const file of data) yield* readDocuments(readRows(file), tokenizer, { ...options, file });
  }
  for (let pass = 0n; ; pass++) {
    let some = false;
    for await (const document of shuffled(once(), { seed: seed + pass, window })) {
      some = true;
      yield document;
    }
    if (!some) throw invalid("data", `${data.join(", ")}: nothing to learn`);
  }
}

async function follow(
  events: AsyncIterable<ModelTrainEvent>,
  { steps }: ModelRecipe,
  log: TrainingLog,
  { json, out }: TrainModelFlags,
): Promise<{ readonly type: "done"; readonly folder: string; readonly loss: number | null }> {
  using bar = new Progress();
  const pace = new Pace();
  let loss: number | null = null;
  try {
    for await (const event of events) {
      if (event.type === "done") break;
      if (json) console.log(JSON.stringify(event));
      if (event.type === "checkpoint") continue;
      await log.add(event);
      loss = event.loss;
      const parts = [
        `loss ${event.loss.toFixed(3)}`,
        `${Math.round(event.tokensPerSecond).toLocaleString("en")} tokens/s`,
        pace.left(event.step + 1, steps),
      ];
      bar.show(parts.filter((part) => part !== "").join(" · "), (event.step + 1) / steps);
    }
  } finally {
    await log.flush();
  }
  return { type: "done", folder: out, loss };
}
