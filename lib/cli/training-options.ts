import { mkdir } from "node:fs/promises";
import { type Command, InvalidArgumentError, Option } from "commander";
import { dataFormats } from "../data/samples.js";
import { ioError } from "../errors.js";
import { Interrupted } from "./training-run.js";

/** The options that both kinds of training share. */
export function addTrainingOptions(command: Command): Command {
  return command
    .requiredOption("--data <file>", "rows to learn from, .jsonl or .parquet (repeatable)", collect, [])
    .addOption(
      new Option("--data-format <layout>", "layout of the rows; default: what the first looks like").choices(
        dataFormats,
      ),
    )
    .requiredOption("--out <folder>", "where the result, its log and its checkpoints go")
    .option("--recipe <file>", "a JSON object of training options")
    .option("--window <n>", "items held at a time to shuffle them", count, 10_000)
    .option("--resume", "continue from the last checkpoint in --out")
    .option("--json", "print each event as a line of JSON");
}

const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value];

/** A whole number from 1. */
export function count(text: string): number {
  if (!/^[1-9]\d{0,14}$/.test(text)) throw new InvalidArgumentError("a whole number from 1 is needed");
  return Number(text);
}

/** A share from 0 to below 1. */
export function share(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= 0 && value < 1))
    throw new InvalidArgumentError("a number from 0 to below 1 is needed");
  return value;
}

/** Makes a folder and those above it. IO_FAILED. */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    throw ioError(error, path, "mkdir");
  }
}

/** Runs until the end, or until Ctrl-C: then says how to go on, sets exit status 130 and gives null. */
export async function interruptible<T>(flags: { readonly out: string }, run: () => Promise<T>): Promise<T | null> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error;
    console.error(`interrupted: the same command with --resume continues from the checkpoint in ${flags.out}`);
    process.exitCode = 130;
    return null;
  }
}
