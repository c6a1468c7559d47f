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
 * Writes a file whole or not at all: `write` fills a temporary file in the same folder, which is synced and renamed over `path`;
 * then the folder is synced. The temporary file is removed on failure; a process that is killed may leave it behind.
 * Errors: IO_FAILED; what `write` throws passes through.
 */
export async function writeWhole(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const temporary = besideName(path);
  try {
    const handle = await open(temporary, "wx");
    try {
      await write(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw ioError(error, path, "write");
  }
}

/** The same for bytes that are there, or come one after another. */
export async function writeAtomic(path: string, chunks: Chunks): Promise<void> {
  await writeWhole(path, async (handle) => {
    if (typeof chunks === "string") await handle.writeFile(chunks, "utf8");
    else for await (const chunk of chunks) await writeAll(handle, chunk);
  });
}

/** A rename is on the disk once its folder is; where folders cannot be synced, it is up to the system. */
async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(folder, "r");
  } catch {
    return;
  }
  try {
    await handle.sync();
  } catch {
    // EINVAL or EPERM: some file systems have no such thing.
  } finally {
    await handle.close();
  }
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  let done = 0;
  while (done < chunk.length) done += (await handle.write(chunk, done, chunk.length - done)).bytesWritten;
}
