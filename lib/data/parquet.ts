import { type FileHandle, open } from "node:fs/promises";
import { type AsyncBuffer, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { C2CError, ioError } from "../errors.js";
import { isObject } from "../weights/file.js";
import { type Row, rowInvalid } from "./rows.js";

/** The rows of a .parquet file, one row group at a time. FILE_INVALID, IO_FAILED. */
export async function* readParquet(path: string): AsyncGenerator<Row, void> {
  let handle: FileHandle;
  try {
    handle = await open(path);
  } catch (error) {
    throw ioError(error, path, "open");
  }
  try {
    const file = await buffer(handle, path);
    const metadata = await parse(path, "the footer", () => parquetMetadataAsync(file));
    let start = 0;
    for (const group of metadata.row_groups) {
      const rowStart = start;
      const rowEnd = start + Number(group.num_rows);
      const what = `rows ${rowStart} to ${rowEnd - 1}`;
      const options = { file, metadata, compressors, rowStart, rowEnd };
      const rows: readonly unknown[] = await parse(path, what, () => parquetReadObjects(options));
      if (rows.length !== rowEnd - rowStart) throw rowInvalid(path, `${what}: only ${rows.length} could be read`);
      for (const row of rows) if (isObject(row)) yield plainRecord(row);
      start = rowEnd;
    }
  } finally {
    await handle.close();
  }
}

/** Runs a step of the parquet reader; whatever it throws is the file's fault, unless the system refused to read. */
async function parse<T>(path: string, what: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    if (error instanceof C2CError) throw error;
    throw rowInvalid(path, `${what}: ${error instanceof Error ? error.message : error}`, error);
  }
}

async function buffer(handle: FileHandle, path: string): Promise<AsyncBuffer> {
  const system = async <T>(step: () => Promise<T>): Promise<T> => {
    try {
      return await step();
    } catch (error) {
      throw ioError(error, path, "read");
    }
  };
  const { size } = await system(() => handle.stat());
  return {
    byteLength: size,
    slice: async (start, end = size) => {
      const bytes = new Uint8Array(Math.max(0, end - start));
      const { bytesRead } = await system(() => handle.read(bytes, 0, bytes.length, start));
      return bytes.buffer.slice(0, bytesRead);
    },
  };
}

function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (Array.isArray(value)) return value.map(plain);
  return isObject(value) && Object.getPrototypeOf(value) === Object.prototype ? plainRecord(value) : value;
}

function plainRecord(row: Row): Row {
  return Object.fromEntries(Object.entries(row).map(([key, value]) => [key, plain(value)]));
}
