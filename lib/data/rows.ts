import { createReadStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { extname } from "node:path";
import { createInterface } from "node:readline";
import { TextDecoder } from "node:util";
import { type AsyncBuffer, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { C2CError, ioError } from "../errors.js";

/** One row of a data file, by field name. What a row holds is for its reader to check. */
export type Row = Readonly<Record<string, unknown>>;

/**
 * Reads the rows of a `.jsonl` file (one JSON object a line; empty lines are skipped) or of a `.parquet` file (snappy, gzip, zstd,
 * brotli, lz4 or uncompressed), in order, holding one line or one row group at a time. Parquet's 64-bit integers are numbers
 * where a number holds them exactly, else bigints.
 * Errors: FILE_INVALID with the number of the line (from 1) or of the rows (from 0); IO_FAILED; UNSUPPORTED for other extensions.
 */
export async function* readRows(path: string): AsyncGenerator<Row, void> {
  const extension = extname(path).toLowerCase();
  if (extension === ".jsonl") yield* readLines(path);
  else if (extension === ".parquet") yield* readParquet(path);
  else {
    const details = { what: `data file ${path}`, supported: [".jsonl", ".parquet"] };
    throw new C2CError("UNSUPPORTED", details, `${path}: rows are read from .jsonl and .parquet`);
  }
}

/** FILE_INVALID for a file of rows; `reason` says where. */
export function rowInvalid(file: string, reason: string, cause?: unknown): C2CError<"FILE_INVALID"> {
  return new C2CError("FILE_INVALID", { file, reason }, `${file}: ${reason}`, { cause });
}

async function* readLines(path: string): AsyncGenerator<Row, void> {
  // Bytes pass readline as Latin-1: it would break lines at U+2028, which JSON allows, and hide bytes that are not UTF-8.
  const stream = createReadStream(path, { encoding: "latin1" });
  const lines = createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY });
  let failure: Error | undefined;
  stream.once("error", (error) => {
    failure = error;
    lines.close();
  });
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });
  let number = 0;
  try {
    for await (const line of lines) {
      number += 1;
      const row = parseLine(path, number, Buffer.from(line, "latin1"), decoder);
      if (row) yield row;
    }
  } catch (error) {
    throw ioError(error, path, "read");
  } finally {
    lines.close();
    stream.destroy();
  }
  if (failure) throw ioError(failure, path, "read");
}

function parseLine(path: string, number: number, bytes: Uint8Array, decoder: TextDecoder): Row | null {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch (error) {
    throw rowInvalid(path, `line ${number} is not UTF-8`, error);
  }
  if (text.trim() === "") return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw rowInvalid(path, `line ${number} is not JSON: ${error instanceof Error ? error.message : error}`, error);
  }
  if (!isRecord(value)) throw rowInvalid(path, `line ${number} is not a JSON object`);
  return value;
}

async function* readParquet(path: string): AsyncGenerator<Row, void> {
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
      for (const row of rows) if (isRecord(row)) yield plainRecord(row);
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
  return isRecord(value) && Object.getPrototypeOf(value) === Object.prototype ? plainRecord(value) : value;
}

function plainRecord(row: Row): Row {
  return Object.fromEntries(Object.entries(row).map(([key, value]) => [key, plain(value)]));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
