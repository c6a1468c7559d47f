import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import * as v from "valibot";
import type { TensorEntry, TensorTable } from "../../typings/native.js";
import { ioError } from "../errors.js";
import { invalid as invalidOption } from "../options.js";
import { besideName, writeAtomic } from "../weights/atomic.js";
import { invalid, parseObject, readTextIfThere } from "../weights/file.js";
import { readSafetensors, type TensorData, writeSafetensors } from "../weights/safetensors.js";

/** The file that says what a folder's run is: its recipe, and how far it is. */
const RECORD = "train.json";
/** The optimiser's moments. */
const MOMENTS = "optimizer.safetensors";
const VERSION = 1;

/** How far a run is. Every random draw is made from the recipe's seed and the step, so these two are the random streams' state. */
export interface RunRecord {
  readonly step: number;
  readonly finished: boolean;
  /** All options that shape the run, defaults filled in. */
  readonly recipe: Readonly<Record<string, unknown>>;
  /** Samples taken from the data so far, and how many of them were skipped, where that is not steps times batch. */
  readonly pulled?: number;
  readonly skipped?: number;
}

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const record = v.object({
  version: v.literal(VERSION),
  step: count,
  finished: v.boolean(),
  recipe: v.record(v.string(), v.unknown()),
  pulled: v.exactOptional(count),
  skipped: v.exactOptional(count),
});

/** What reads a trainer's tensors. */
export interface StateSource {
  parameters(): readonly { readonly name: string; readonly shape: readonly number[] }[];
  read(part: "value" | "first" | "second", name: string): Promise<Float32Array>;
}

/** A trainer's tensors as they go into a file, read when their turn comes. */
export function stateTensors(
  source: StateSource,
  part: "value" | "first" | "second",
  rename: (name: string) => string,
): TensorData[] {
  return source.parameters().map(({ name, shape }) => ({
    name: rename(name),
    dtype: "F32",
    shape,
    data: async () => {
      const values = await source.read(part, name);
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    },
  }));
}

/** Makes a run's folder ready: creates it, and clears away what a killed run left half-written. Errors: IO_FAILED. */
export async function openRun(folder: string): Promise<string> {
  const path = resolve(folder);
  try {
    await mkdir(path, { recursive: true });
    for (const name of await readdir(path)) {
      if (/^\.(checkpoint-\d+|final|model\.safetensors|config\.json|train\.json)\..*\.tmp$/.test(name))
        await rm(join(path, name), { recursive: true, force: true });
    }
  } catch (error) {
    throw ioError(error, folder, "open");
  }
  return path;
}

/** The newest checkpoint of a run; null where there is none. Errors: IO_FAILED. */
export async function newestCheckpoint(folder: string): Promise<string | null> {
  const steps = await checkpointSteps(folder);
  return steps.length === 0 ? null : join(folder, `checkpoint-${Math.max(...steps)}`);
}

async function checkpointSteps(folder: string): Promise<number[]> {
  try {
    const names = await readdir(folder);
    return names.flatMap((name) => /^checkpoint-(\d+)$/.exec(name)?.[1] ?? []).map(Number);
  } catch (error) {
    throw ioError(error, folder, "list");
  }
}

/**
 * Writes the checkpoint of a step whole or not at all: into a hidden folder, synced, then renamed; older ones are removed after that.
 * `fill` writes what makes the folder loadable by itself. Returns the checkpoint's path. Errors: IO_FAILED.
 */
export async function writeCheckpoint(
  folder: string,
  state: RunRecord,
  source: StateSource,
  fill: (temporary: string) => Promise<void>,
): Promise<string> {
  const path = join(folder, `checkpoint-${state.step}`);
  const temporary = besideName(path);
  try {
    await mkdir(temporary);
    await fill(temporary);
    const moments = (["first", "second"] as const).flatMap((part) =>
      stateTensors(source, part, (name) => `${part}/${name}`),
    );
    await writeSafetensors(join(temporary, MOMENTS), moments);
    await writeRecord(temporary, state);
    await syncFolder(temporary);
    // A checkpoint of this step can be there already when its run was killed right after writing it.
    await rm(path, { recursive: true, force: true });
    await rename(temporary, path);
    await syncFolder(folder);
    await removeCheckpoints(folder, state.step);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw ioError(error, path, "write");
  }
  return path;
}

/** Removes a run's checkpoints but the one of step `keep`. Errors: IO_FAILED. */
export async function removeCheckpoints(folder: string, keep?: number): Promise<void> {
  for (const step of await checkpointSteps(folder)) {
    if (step !== keep) await rm(join(folder, `checkpoint-${step}`), { recursive: true, force: true });
  }
}

/** Writes what a folder's run is. Errors: IO_FAILED. */
export async function writeRecord(folder: string, state: RunRecord): Promise<void> {
  await writeAtomic(join(folder, RECORD), `${JSON.stringify({ version: VERSION, ...state }, null, 2)}\n`);
}

/** What a folder's run is; null where it holds none. Errors: IO_FAILED, FILE_INVALID. */
export async function readRecord(folder: string): Promise<RunRecord | null> {
  const path = join(folder, RECORD);
  const text = await readTextIfThere(path);
  if (text === null) return null;
  const parsed = v.safeParse(record, parseObject(text, path));
  if (!parsed.success) throw invalid(path, `key ${v.getDotPath(parsed.issues[0]) ?? "?"}: ${parsed.issues[0].message}`);
  return parsed.output;
}

/** The table of a checkpoint's state: `values` are its weights as they are called in their own file. Errors: IO_FAILED, FILE_INVALID. */
export async function stateTable(checkpoint: string, values: string): Promise<TensorTable> {
  const files = [join(checkpoint, values), join(checkpoint, MOMENTS)];
  const tensors: TensorEntry[] = [];
  for (const [file, path] of files.entries()) {
    for (const entry of (await readSafetensors(path)).tensors)
      tensors.push({ ...entry, name: file === 0 ? `value/${entry.name}` : entry.name, file });
  }
  return { files, tensors };
}

/** OPTION_INVALID where a run's recipe is not the one it is to be continued with; `free` options may differ. */
export function checkRecipe(old: RunRecord["recipe"], now: RunRecord["recipe"], free: readonly string[]): void {
  for (const key of new Set([...Object.keys(old), ...Object.keys(now)])) {
    if (free.includes(key) || JSON.stringify(old[key]) === JSON.stringify(now[key])) continue;
    const [before, after] = [old[key], now[key]].map((value) => JSON.stringify(value) ?? "nothing");
    throw invalidOption("resume", `the run was begun with ${key} ${before}, not ${after}`);
  }
}

async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
