import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { ioError } from "../errors.js";
import { invalid } from "./file.js";

/** Bytes that are hashed between two looks at other work: about half a millisecond. */
const PIECE = 1 << 20;

/** A file as it was when something was loaded from it. */
export interface Stamp {
  readonly path: string;
  readonly size: number;
  readonly changed: number;
}

/** Remembers files as they are now. Errors: IO_FAILED. */
export async function stampFiles(paths: readonly string[]): Promise<readonly Stamp[]> {
  return Promise.all(
    paths.map(async (path) => {
      try {
        const { size, mtimeMs } = await stat(path);
        return { path, size, changed: mtimeMs };
      } catch (error) {
        throw ioError(error, path, "stat");
      }
    }),
  );
}

/**
 * "sha256:…" over the files' names and contents and over `extra`, read piece by piece. Errors: IO_FAILED; FILE_INVALID where a file
 * is no longer what it was.
 */
export async function fingerprintFiles(stamps: readonly Stamp[], extra: readonly string[]): Promise<string> {
  const whole = createHash("sha256");
  for (const { path, size, changed } of stamps) {
    const [now] = await stampFiles([path]);
    if (now?.size !== size || now.changed !== changed) {
      throw invalid(path, "has changed since it was loaded");
    }
    const hash = createHash("sha256");
    try {
      for await (const piece of createReadStream(path, { highWaterMark: PIECE })) {
        hash.update(piece);
      }
    } catch (error) {
      throw ioError(error, path, "read");
    }
    whole.update(`${basename(path)} ${hash.digest("hex")}\n`);
  }
  for (const line of extra) {
    whole.update(`${line}\n`);
  }
  return fingerprintOf(whole);
}

/** A finished hash as a fingerprint. */
export function fingerprintOf(hash: Hash): string {
  return `sha256:${hash.digest("hex")}`;
}

/** The function's first outcome, made once; a failure is not kept. */
export function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    if (made === undefined) {
      const attempt = make();
      made = attempt;
      attempt.catch(() => {
        made = undefined;
      });
    }
    return made;
  };
}
