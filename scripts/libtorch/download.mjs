// One large file over HTTP: goes on where it stopped, checks its SHA-256, and appears under its name only when whole.
import { createHash } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { open, statfs } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { Failure } from "../process.mjs";

const TRIES = 5;
const STALL_MS = 60_000;
const MB = 1e6;

/**
 * Fetches `url` to `file`; the file's SHA-256. What has arrived lies in `file.part` and is used again after an
 * interruption, if the server still has the same file (If-Range). Throws Failure: no such file, no connection after
 * five tries without a byte, another digest than `sha256` (what came is deleted), a full disk (what came is kept).
 * `onProgress(have, total)`: bytes; total is 0 where the server does not say. `pause`: milliseconds before a second try.
 */
export async function download({ url, file, sha256 = null, signal, onProgress = () => {}, pause = 1000 }) {
  const part = `${file}.part`;
  mkdirSync(dirname(file), { recursive: true });
  let digest;
  for (let tries = 0, before = sizeOf(part); digest === undefined; ) {
    try {
      digest = await attempt(url, part, signal, onProgress);
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (error instanceof Failure) throw error;
      if (error.code === "ENOSPC") throw full(part, error.missing);
      if (error.syscall === "open" || error.syscall === "write")
        throw new Failure(`${part} cannot be written (${error.code}): make the folder writable, then run this again.`);
      const now = sizeOf(part);
      tries = now > before ? 1 : tries + 1;
      before = now;
      if (tries >= TRIES) throw broken(url, error, now);
      await new Promise((done) => setTimeout(done, pause * 2 ** (tries - 1)));
    }
  }
  if (sha256 !== null && digest !== sha256) {
    forget(part);
    throw new Failure(
      `${url} has SHA-256 ${digest} instead of ${sha256}: what came was deleted. Run this again; if it happens twice, something between you and the server changes files.`,
    );
  }
  renameSync(part, file);
  rmSync(`${part}.json`, { force: true });
  return digest;
}

async function attempt(url, part, signal, onProgress) {
  const meta = readMeta(part);
  const have = meta?.url === url ? sizeOf(part) : 0;
  const headers = have > 0 && meta.tag ? { range: `bytes=${have}-`, "if-range": meta.tag } : {};
  const stall = new AbortController();
  const timer = setTimeout(() => stall.abort(new Error("no answer")), STALL_MS);
  const response = await fetch(url, {
    headers,
    signal: signal ? AbortSignal.any([signal, stall.signal]) : stall.signal,
  }).catch((error) => {
    clearTimeout(timer);
    throw error;
  });
  try {
    const resumed = response.status === 206 && contentStart(response) === have;
    if (response.status === 416 || (response.status === 206 && !resumed)) {
      forget(part);
      throw new Error("the server has another file now");
    }
    if (!response.ok || !response.body) {
      // A server that is overloaded may answer later; one that has no such file will not.
      if (response.status >= 500 || response.status === 429) throw new Error(`status ${response.status}`);
      throw new Failure(`${url} answered ${response.status}`);
    }
    const start = resumed ? have : 0;
    const length = Number(response.headers.get("content-length") ?? 0);
    const total = length > 0 ? start + length : 0;
    await enough(part, length);
    const handle = await open(part, resumed ? "r+" : "w");
    try {
      writeFileSync(`${part}.json`, JSON.stringify({ url, tag: tagOf(response), total }));
      const hash = createHash("sha256");
      if (start > 0) for await (const chunk of createReadStream(part, { end: start - 1 })) hash.update(chunk);
      let at = start;
      onProgress(at, total);
      for await (const chunk of response.body) {
        timer.refresh();
        hash.update(chunk);
        for (let done = 0; done < chunk.length; ) {
          const { bytesWritten } = await handle.write(chunk, done, chunk.length - done, at + done);
          done += bytesWritten;
        }
        at += chunk.length;
        onProgress(at, total);
      }
      if (total > 0 && at < total) throw new Error("the connection ended early");
      return hash.digest("hex");
    } finally {
      await handle.close();
    }
  } finally {
    clearTimeout(timer);
    await response.body?.cancel().catch(() => {});
  }
}

/** Throws when the disk cannot hold `bytes` more. */
async function enough(part, bytes) {
  const { bavail, bsize } = await statfs(dirname(part));
  if (bytes > bavail * bsize)
    throw Object.assign(new Error("disk full"), { code: "ENOSPC", missing: bytes - bavail * bsize });
}

function full(part, missing) {
  const need = missing === undefined ? "" : ` (${Math.ceil(missing / MB)} MB are missing)`;
  return new Failure(
    `The disk that holds ${dirname(part)} is full${need}: free some space or set XDG_CACHE_HOME to a folder elsewhere, then run this again; what came so far is kept.`,
  );
}

function broken(url, error, have) {
  const cause = error.cause?.code ?? error.cause?.message ?? error.message;
  const kept = have > 0 ? ` ${(have / MB).toFixed(0)} MB are kept: run this again to go on from there.` : "";
  return new Failure(`the download of ${url} failed: ${cause}.${kept}`);
}

/** What names this version of the file at the server; weak tags do not hold for ranges. */
function tagOf(response) {
  const tag = response.headers.get("etag");
  if (tag && !tag.startsWith("W/")) return tag;
  return response.headers.get("last-modified");
}

function contentStart(response) {
  return Number(/^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1] ?? -1);
}

function readMeta(part) {
  try {
    return JSON.parse(readFileSync(`${part}.json`, "utf8"));
  } catch {
    return undefined;
  }
}

function sizeOf(path) {
  return existsSync(path) ? statSync(path).size : 0;
}

function forget(part) {
  rmSync(part, { force: true });
  rmSync(`${part}.json`, { force: true });
}

/** A callback for `onProgress` that writes lines to stderr: one that is rewritten on a terminal, one per 10 % elsewhere. */
export function progressLine(file) {
  const terminal = process.stderr.isTTY === true;
  const step = terminal ? 1 : 10;
  let shown = -step;
  return (have, total) => {
    if (total === 0) return;
    const percent = Math.floor((100 * have) / total);
    if (percent < shown + step) return;
    shown = percent - (percent % step);
    const line = `libtorch: ${percent} % of ${(total / MB).toFixed(0)} MB (${basename(file)})`;
    process.stderr.write(terminal ? `\r${line}${percent === 100 ? "\n" : ""}` : `${line}\n`);
  };
}
