import { type FileHandle, open, readFile } from "node:fs/promises";
import { C2CError, ioError } from "../errors.js";

/** A FILE_INVALID error about `file`. */
export function invalid(file: string, reason: string): C2CError<"FILE_INVALID"> {
  return new C2CError("FILE_INVALID", { file, reason }, `${file}: ${reason}`);
}

/** Opens a file for reading, gives its handle and size in bytes to `use` and closes it. Errors: IO_FAILED, and what `use` throws. */
export async function withFile<T>(path: string, use: (handle: FileHandle, size: number) => Promise<T>): Promise<T> {
  try {
    const handle = await open(path, "r");
    try {
      const stat = await handle.stat();
      if (stat.isDirectory()) {
        throw new C2CError("IO_FAILED", { path, operation: "read", system: "EISDIR" }, `read ${path}: EISDIR`);
      }
      return await use(handle, stat.size);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw ioError(error, path, "read");
  }
}

/** Bytes [begin, end) of an open file. Errors: FILE_INVALID when the file ends before. */
export async function readRange(handle: FileHandle, path: string, begin: number, end: number): Promise<Uint8Array> {
  const data = new Uint8Array(end - begin);
  let done = 0;
  while (done < data.length) {
    const { bytesRead } = await handle.read(data, done, data.length - done, begin + done);
    if (bytesRead === 0) throw invalid(path, `ends at byte ${begin + done}, ${end} expected`);
    done += bytesRead;
  }
  return data;
}

/** A text file's content. Errors: IO_FAILED. */
export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw ioError(error, path, "read");
  }
}

/** A text file's content, or null where there is no such file. Errors: IO_FAILED for everything but a missing file. */
export async function readTextIfThere(path: string): Promise<string | null> {
  try {
    return await readText(path);
  } catch (error) {
    if (error instanceof C2CError && "system" in error.details && error.details.system === "ENOENT") return null;
    throw error;
  }
}

/** Whether a value is a plain JSON object. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Parses JSON text that came from `path` and must be an object. Errors: FILE_INVALID. */
export function parseObject(text: string, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalid(path, `not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!isObject(value)) throw invalid(path, "not a JSON object");
  return value;
}
