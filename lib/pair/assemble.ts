import { copyFile, mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { ioError } from "../errors.js";
import { readFuserFolder, writeFuserFolder } from "../fuser/folder.js";
import { besideName, writeAtomic } from "../weights/atomic.js";
import { elements } from "../weights/dtypes.js";
import { parseObject, readText } from "../weights/file.js";
import { modelTable } from "../weights/folder.js";
import { checkBar } from "./bar.js";
import type { Built } from "./build.js";
import { pairCard } from "./card.js";

const MODEL_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

/** Puts a built pair together in `folder`, whole or not at all; an earlier one is replaced. IO_FAILED. */
export async function assemble(built: Built, seed: bigint, folder: string): Promise<void> {
  const temporary = besideName(folder);
  try {
    await mkdir(temporary, { recursive: true });
    for (const who of ["receiver", "sharer"] as const) {
      await mkdir(join(temporary, who));
      for (const name of MODEL_FILES) await copyFile(join(built.models[who], name), join(temporary, who, name));
      await writeAtomic(join(temporary, who, "generation_config.json"), await generationConfig(built.models[who]));
    }
    const [kept] = built.fusers;
    const fuser = kept ? await readFuserFolder(kept.folder) : null;
    if (fuser) await writeFuserFolder(fuser, join(temporary, "fuser"), "reference");
    const lines = built.questions.map((question) => `${JSON.stringify(question)}\n`).join("");
    await writeAtomic(join(temporary, "questions.jsonl"), lines);
    const { strangers: _, ...world } = built.world;
    await writeAtomic(join(temporary, "world.json"), `${JSON.stringify(world)}\n`);
    const weights = {
      receiver: count((await modelTable(built.models.receiver)).tensors),
      sharer: count((await modelTable(built.models.sharer)).tensors),
      fuser: count(fuser?.table.tensors ?? []),
    };
    const bar = checkBar(built.fusers.map(({ final }) => final));
    await writeAtomic(join(temporary, "card.md"), pairCard(built, { seed, bar, weights }));
    await replace(temporary, folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw ioError(error, folder, "write");
  }
}

/** Copies a pair over another one, whole or not at all. IO_FAILED. */
export async function install(from: string, to: string): Promise<void> {
  const temporary = besideName(to);
  try {
    await copyFolder(from, temporary);
    await replace(temporary, to);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw ioError(error, to, "write");
  }
}

/** Bytes of all files in a folder and those below it. IO_FAILED. */
export async function folderBytes(folder: string): Promise<number> {
  try {
    let sum = 0;
    for (const entry of await readdir(folder, { withFileTypes: true, recursive: true }))
      if (entry.isFile()) sum += (await stat(join(entry.parentPath, entry.name))).size;
    return sum;
  } catch (error) {
    throw ioError(error, folder, "read");
  }
}

/** What ends an answer and what pads, where programs look for it. */
async function generationConfig(model: string): Promise<string> {
  const path = join(model, "config.json");
  const { eos_token_id, pad_token_id } = parseObject(await readText(path), path);
  return `${JSON.stringify({ eos_token_id, pad_token_id, do_sample: false }, null, 2)}\n`;
}

function count(tensors: readonly { readonly shape: readonly number[] }[]): number {
  return tensors.reduce((sum, { shape }) => sum + elements(shape), 0);
}

async function copyFolder(from: string, to: string): Promise<void> {
  await mkdir(to);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    await (entry.isDirectory() ? copyFolder(source, target) : copyFile(source, target));
  }
}

/** Moves a folder into the place of another one. */
async function replace(temporary: string, folder: string): Promise<void> {
  const old = besideName(folder);
  const replaces = await stat(folder).then(
    () => true,
    () => false,
  );
  if (replaces) await rename(folder, old);
  try {
    await rename(temporary, folder);
  } catch (error) {
    if (replaces) await rename(old, folder);
    throw error;
  }
  await rm(old, { recursive: true, force: true });
}
