// Fusers made of the embedded one.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readFuserFolder } from "../dist/fuser/folder.js";
import { readTensor } from "../dist/weights/read.js";
import { writeSafetensors } from "../dist/weights/safetensors.js";

/**
 * Saves a fuser with its tensors changed: `edit(name, values, shape)` changes the float32 values in place or returns others with
 * their shape; `manifest` changes fuser.json. Returns the folder.
 */
export async function changedFuser(fuser, to, edit, manifest = (content) => content) {
  await fuser.save(to, { format: "native" });
  const { table } = await readFuserFolder(to);
  const tensors = [];
  for (const entry of table.tensors) {
    const { data } = await readTensor(table, entry.name);
    const values = new Float32Array(data.slice().buffer);
    const result = edit(entry.name, values, entry.shape) ?? { values, shape: entry.shape };
    tensors.push({ name: entry.name, dtype: "F32", shape: result.shape, data: new Uint8Array(result.values.buffer) });
  }
  await writeSafetensors(join(to, "fuser.safetensors"), tensors);
  const file = join(to, "fuser.json");
  await writeFile(file, JSON.stringify(manifest(JSON.parse(await readFile(file, "utf8")))));
  return to;
}

/** The sharer's half of the input (2 × 32 columns) widened to the receiver's 3 × 24: with `ownSharer`, receiver to receiver. */
export function widen(name, values, [rows]) {
  if (!/_in\.weight$/.test(name)) return undefined;
  const wide = new Float32Array(rows * 144);
  for (let row = 0; row < rows; row++) {
    wide.set(values.subarray(row * 136, row * 136 + 64), row * 144);
    wide.set(values.subarray(row * 136 + 64, row * 136 + 136), row * 144 + 72);
  }
  return { values: wide, shape: [rows, 144] };
}

/** Manifest of a fuser whose sharer has the receiver's shape and layers. */
export function ownSharer(content) {
  const projectors = content.projectors.map((one) => ({ ...one, sharerLayer: one.sharerLayer - 1 }));
  return { ...content, sharer: content.receiver, projectors };
}
