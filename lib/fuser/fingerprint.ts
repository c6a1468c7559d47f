import { createHash } from "node:crypto";
import type { TensorEntry } from "../../typings/native.js";
import { fingerprintOf } from "../weights/fingerprint.js";
import { readEntryBytes } from "../weights/read.js";
import type { FuserFolder } from "./folder-types.js";

/**
 * "sha256:…" over a fuser's projectors and weights: the same for one fuser in either folder format. Errors: IO_FAILED, FILE_INVALID.
 */
export async function fingerprintFuser(folder: FuserFolder): Promise<string> {
  const hash = createHash("sha256");
  const tensors = folder.table.tensors.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  for (const { kind, receiverLayer, sharerLayer, options, prefix } of folder.projectors) {
    const sorted = Object.entries(options).toSorted(([a], [b]) => (a < b ? -1 : 1));
    hash.update(`${JSON.stringify([kind, receiverLayer, sharerLayer, sorted])}\n`);
    for (const entry of tensors.filter(({ name }) => name.startsWith(prefix))) {
      hash.update(`${entry.name.slice(prefix.length)} ${entry.dtype} ${entry.shape.join("×")}\n`);
      hash.update(await bytesOf(folder, entry));
    }
  }
  return fingerprintOf(hash);
}

function bytesOf(folder: FuserFolder, entry: TensorEntry): Promise<Uint8Array> {
  return folder.read ? folder.read(entry.name) : readEntryBytes(folder.table, entry);
}
