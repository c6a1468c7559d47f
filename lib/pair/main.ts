#!/usr/bin/env node
import "../cli/silent.js";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, InvalidArgumentError } from "commander";
import { integerFlag } from "../cli/flags.js";
import { Progress } from "../cli/progress.js";
import { duration, Interrupt, Interrupted } from "../cli/training-run.js";
import { C2CError } from "../errors.js";
import { native } from "../native.js";
import { assemble, folderBytes, install } from "./assemble.js";
import { checkBar } from "./bar.js";
import { buildPair } from "./build.js";
import { fullRecipe, quickRecipe } from "./recipe.js";
import { Stages } from "./stages.js";

/** What a pair may weigh. */
const MOST_BYTES = 14 * 2 ** 20;
/** Fusers that have to be held against the bar before a pair is installed. */
const LEAST_FUSERS = 3;

/** Lines for each thing, where there is no terminal to show a bar. */
const LINES = 40;

interface Flags {
  readonly seed: bigint;
  readonly work?: string;
  readonly fuserSeeds: number;
  readonly quick?: boolean;
  readonly install?: boolean;
}

const home = fileURLToPath(new URL("../..", import.meta.url));
const program = new Command("make:pair")
  .description("build the embedded pair from one seed: world, tokenizers, models, fuser, scores and card")
  .option("--seed <n>", "what everything follows from", seedFlag, 1n)
  .option("--work <folder>", "where stages are kept; the same command continues there (default build/pair/SEED)")
  .option("--fuser-seeds <n>", "fusers to train; the first is kept", integerFlag, 1)
  .option("--quick", "a toy: every stage runs, nothing is learned")
  .option("--install", "put the pair into models/pair, if the bar is met over three fusers or more")
  .action(make);

async function make(flags: Flags): Promise<void> {
  const { seed, fuserSeeds } = flags;
  if (flags.install && fuserSeeds < LEAST_FUSERS)
    throw new C2CError(
      "OPTION_INVALID",
      { option: "install", reason: `needs --fuser-seeds ${LEAST_FUSERS} or more` },
      `install: needs --fuser-seeds ${LEAST_FUSERS} or more`,
    );
  const recipe = flags.quick ? quickRecipe : fullRecipe;
  const work = flags.work ?? join(home, "build", flags.quick ? "pair-quick" : "pair", String(seed));
  native().setThreads(1);
  const stages = await Stages.open(work, (name, seconds) => console.log(`${name}: ${duration(seconds)}`));
  using interrupt = new Interrupt();
  const built = await follow((onProgress) =>
    buildPair({ work, recipe, seed, fuserSeeds, stages, signal: interrupt.signal, onProgress }),
  );
  const folder = join(work, "pair");
  await assemble(built, seed, folder);
  const bytes = await folderBytes(folder);
  const { answer, known } = built.probes;
  console.log(`probes: answers ${(100 * answer).toFixed(1)} %, known or not ${known.toFixed(3)}`);
  const bar = built.probesMet ? checkBar(built.fusers.map(({ final }) => final)) : [];
  for (const { name, limit, mean, low, high, met } of bar) {
    const [m, l, h] = [mean, low, high].map((share) => (100 * share).toFixed(1));
    console.log(`${met ? "met   " : "MISSED"} ${name}: ${m} % (${l} to ${h}), bar ${limit}`);
  }
  console.log(`${folder}: ${(bytes / 2 ** 20).toFixed(1)} MB, ${duration(built.seconds)} of work in stages`);
  const reached = bar.length > 0 && bar.every(({ met }) => met) && bytes <= MOST_BYTES;
  if (!built.probesMet) console.error("a probe is below what any fuser needs: none was trained");
  if (flags.install && reached) {
    await install(folder, join(home, "models", "pair"));
    console.log("installed in models/pair");
  }
  if (!reached && !flags.quick) process.exitCode = 3;
}

/** Shows what is under way, several things at a time, on one line. */
async function follow<T>(
  run: (onProgress: (thing: string, done: number, text: string) => void) => Promise<T>,
): Promise<T> {
  using bar = new Progress();
  const things = new Map<string, { readonly done: number; readonly text: string }>();
  return await run((thing, done, text) => {
    const before = things.get(thing)?.done ?? 0;
    if (!process.stderr.isTTY && Math.floor(done * LINES) > Math.floor(before * LINES))
      console.log(`${thing} ${Math.floor(100 * done)} %: ${text}`);
    things.set(thing, { done, text });
    const shown = [...things].filter(([, one]) => one.done < 1);
    const label = shown.map(([name, one]) => `${name} ${Math.floor(100 * one.done)} %: ${one.text}`).join(" · ");
    bar.show(label, Math.min(...shown.map(([, one]) => one.done), 1));
  });
}

function seedFlag(text: string): bigint {
  if (!/^\d{1,18}$/.test(text)) throw new InvalidArgumentError("a whole number is needed");
  return BigInt(text);
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof Interrupted) {
    console.error("interrupted: the same command continues");
    process.exitCode = 130;
  } else {
    const code = error instanceof C2CError ? error.code : "Error";
    console.error(`error ${code}: ${error instanceof Error ? error.message.replace(/\s*\n\s*/g, " ") : String(error)}`);
    process.exitCode = 1;
  }
}
