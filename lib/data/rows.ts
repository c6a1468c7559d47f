import { createReadStream } from "node:fs";
import { extname } from "node:path";
import { createInterface } from "node:readline";
import { TextDecoder } from "node:util";
import { C2CError, ioError } from "../errors.js";
import { isObject } from "../weights/file.js";

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
  else if (extension === ".parquet") {
    const { readParquet } = await import("./parquet.js"); // large, and seldom needed
    yield* readParquet(path);
  } else {
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
  if (!isObject(value)) throw rowInvalid(path, `line ${number} is not a JSON object`);
  return value;
}
