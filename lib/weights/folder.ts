import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { TensorEntry, TensorTable } from "../../typings/native.js";
import { C2CError, ioError } from "../errors.js";
import { invalid, isObject, parseObject, readText } from "./file.js";
import { readSafetensors } from "./safetensors.js";

const WHOLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/**
 * The tensors of a Hugging Face model folder: `model.safetensors`, or the shards that its index names.
 * Errors: IO_FAILED; FILE_INVALID when index and shards disagree; UNSUPPORTED when there are only weights of another format.
 */
export async function modelTable(folder: string): Promise<TensorTable> {
  const names = await list(folder);
  if (names.includes(INDEX)) return await shardedTable(folder);
  if (!names.includes(WHOLE)) {
    const other = names.find(
      (name) => /\.(bin|pt|pth|gguf|onnx|h5|msgpack)$/.test(name) || name.endsWith(".safetensors"),
    );
    if (other) {
      throw new C2CError(
        "UNSUPPORTED",
        { what: `weights in ${other}`, supported: [WHOLE, INDEX] },
        `${folder}: no ${WHOLE}, only ${other}`,
      );
    }
  }
  const path = join(folder, WHOLE);
  return { files: [path], tensors: (await readSafetensors(path)).tensors };
}

async function list(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    throw ioError(error, folder, "list");
  }
}

async function shardedTable(folder: string): Promise<TensorTable> {
  const index = join(folder, INDEX);
  const { weight_map: map } = parseObject(await readText(index), index);
  if (!isObject(map)) throw invalid(index, "key weight_map is missing or not an object");
  const shardOf = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== "string") throw invalid(index, `weight_map.${name} is not a file name`);
    if (!/^[^/\\\0:]+\.safetensors$/.test(shard))
      throw invalid(index, `shard ${JSON.stringify(shard)} is not a plain file name`);
    shardOf.set(name, shard);
  }
  const shards = [...new Set(shardOf.values())].sort();
  if (shards.length === 0) throw invalid(index, "weight_map is empty");
  const tensors: TensorEntry[] = [];
  for (const [file, shard] of shards.entries()) {
    const path = join(folder, shard);
    for (const entry of (await readSafetensors(path)).tensors) {
      const expected = shardOf.get(entry.name);
      if (expected !== shard)
        throw invalid(path, `tensor ${entry.name} is here, the index says ${expected ?? "nothing of it"}`);
      shardOf.delete(entry.name);
      tensors.push({ ...entry, file });
    }
  }
  const [missing] = shardOf;
  if (missing) throw invalid(index, `tensor ${missing[0]} is not in ${missing[1]}`);
  return { files: shards.map((shard) => join(folder, shard)), tensors };
}
