import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ioError } from "../errors.js";

/** Bytes in order; a string is written as UTF-8. */
export type Chunks = Iterable<Uint8Array> | AsyncIterable<Uint8Array> | string;

/** A hidden name beside `path` that nothing else uses. */
export function besideName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
}

/**
 * Writes a file whole or not at all: into a temporary name in the same folder, synced, then renamed over `path`.
 * The temporary file is removed on failure. Errors: IO_FAILED; what the chunks themselves throw passes through.
 */
export async function writeAtomic(path: string, chunks: Chunks): Promise<void> {
  const temporary = besideName(path);
  try {
    const handle = await open(temporary, "wx");
    try {
      if (typeof chunks === "string") await handle.writeFile(chunks, "utf8");
      else for await (const chunk of chunks) await writeAll(handle, chunk);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw ioError(error, path, "write");
  }
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  let done = 0;
  while (done < chunk.length) done += (await handle.write(chunk, done, chunk.length - done)).bytesWritten;
}
