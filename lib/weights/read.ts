import type { TensorEntry, TensorTable } from "../../typings/native.js";
import { C2CError } from "../errors.js";
import { readRange, withFile } from "./file.js";

/** One tensor in memory: row-major little-endian bytes. */
export interface LoadedTensor {
  readonly dtype: TensorEntry["dtype"];
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** Reads the bytes of one tensor. Errors: SHAPE_MISMATCH when the table has none of that name, IO_FAILED, FILE_INVALID. */
export async function readTensor(table: TensorTable, name: string): Promise<LoadedTensor> {
  const entry = table.tensors.find((tensor) => tensor.name === name);
  if (!entry)
    throw new C2CError(
      "SHAPE_MISMATCH",
      { tensor: name, expected: ["a tensor"], actual: [] },
      `tensor ${name} is missing`,
    );
  return { dtype: entry.dtype, shape: entry.shape, data: await readEntryBytes(table, entry) };
}

/** Reads the bytes of an entry of the table. Errors: IO_FAILED, FILE_INVALID. */
export async function readEntryBytes(table: TensorTable, entry: TensorEntry): Promise<Uint8Array> {
  const path = table.files[entry.file];
  if (path === undefined)
    throw new RangeError(`tensor ${entry.name} is in file ${entry.file} of ${table.files.length}`);
  return await withFile(path, (handle) => readRange(handle, path, entry.begin, entry.end));
}
