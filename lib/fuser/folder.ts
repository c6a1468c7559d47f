import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { C2CError, ioError } from "../errors.js";
import { besideName } from "../weights/atomic.js";
import { invalid } from "../weights/file.js";
import type { FuserFolder } from "./folder-types.js";
import { MANIFEST, readNative, WEIGHTS, writeNative } from "./native-format.js";
import { LAYER_FILE, readReference, writeReference } from "./reference-format.js";

export type { FuserFolder } from "./folder-types.js";

/**
 * Reads a fuser's folder: this package's own (fuser.json) or the reference's, or a training run's with final/ or checkpoint-N/ (the
 * newest is taken). Weights stay in their files.
 * Errors: IO_FAILED; FILE_INVALID for missing, extra or lying files; UNSUPPORTED for projector classes and options that are not known.
 */
export async function readFuserFolder(path: string): Promise<FuserFolder> {
  const names = await list(path);
  const own = await readHere(path, names);
  if (own) return own;
  const steps = names.flatMap((name) => /^checkpoint-(\d+)$/.exec(name)?.[1] ?? []).map(Number);
  const run = names.includes("final") ? "final" : steps.length > 0 ? `checkpoint-${Math.max(...steps)}` : null;
  if (run === null) throw invalid(path, `holds no fuser: neither ${MANIFEST} nor ${LAYER_FILE}, final or checkpoint-N`);
  const inside = join(path, run);
  return (await readHere(inside, await list(inside))) ?? (await readReference(inside));
}

/** The fuser that lies in this very folder. */
async function readHere(path: string, names: readonly string[]): Promise<FuserFolder | null> {
  if (names.includes(MANIFEST)) return await readNative(path);
  if (names.includes(LAYER_FILE)) return await readReference(path);
  return null;
}

async function list(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    throw ioError(error, path, "list");
  }
}

/**
 * Writes a fuser's folder whole or not at all: beside `out` first, then renamed. An earlier fuser at `out` is replaced.
 * Errors: IO_FAILED; FILE_INVALID; OPTION_INVALID when `out` holds something else.
 */
export async function writeFuserFolder(
  folder: FuserFolder,
  out: string,
  format: "native" | "reference",
): Promise<void> {
  const target = resolve(out);
  const temporary = besideName(target);
  const old = besideName(target);
  try {
    const replaces = await holdsFuser(target);
    await mkdir(dirname(target), { recursive: true });
    await mkdir(temporary);
    await (format === "native" ? writeNative : writeReference)(folder, temporary);
    if (replaces) await rename(target, old);
    try {
      await rename(temporary, target);
    } catch (error) {
      if (replaces) await rename(old, target);
      throw error;
    }
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw ioError(error, out, "write");
  }
  await rm(old, { recursive: true, force: true }).catch(() => undefined);
}

/** Whether there is a fuser to be replaced; a folder that holds anything else is refused. */
async function holdsFuser(target: string): Promise<boolean> {
  let names: string[];
  try {
    names = await readdir(target);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
    throw error;
  }
  const ours = names.every((name) => [MANIFEST, WEIGHTS].includes(name));
  const theirs = names.every((name) => ["final", "config.json"].includes(name));
  if (!ours && !theirs) {
    const reason = `${target} holds other files`;
    throw new C2CError("OPTION_INVALID", { option: "folder", reason }, reason);
  }
  return names.length > 0;
}
