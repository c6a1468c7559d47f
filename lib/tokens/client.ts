import { Worker } from "node:worker_threads";
import { C2CError } from "../errors.js";
import type { VocabularyTable } from "./vocabulary.js";
import type { PlainError, Reply, Request } from "./worker.js";

interface Pending {
  resolve(reply: Reply): void;
  reject(error: unknown): void;
}

let worker: Worker | null = null;
let nextId = 1;
let nextKey = 1;
const pending = new Map<number, Pending>();

function revive(error: PlainError): Error {
  if (error.code !== null && error.details !== null) return new C2CError(error.code, error.details, error.message);
  return new Error(error.message);
}

function settle(id: number): Pending | undefined {
  const entry = pending.get(id);
  pending.delete(id);
  if (pending.size === 0) worker?.unref();
  return entry;
}

/** Every waiting request fails; the next one starts a new worker, which loads what it needs again. */
function lost(gone: Worker, cause: unknown): void {
  if (worker !== gone) return;
  worker = null;
  const waiting = [...pending.values()];
  pending.clear();
  for (const entry of waiting) entry.reject(cause);
}

function start(): Worker {
  const started = new Worker(new URL("./worker.js", import.meta.url), { name: "cache-to-cache tokens", execArgv: [] });
  started.on("message", (reply: Reply) => {
    const entry = settle(reply.id);
    if (reply.kind === "failed") entry?.reject(revive(reply.error));
    else entry?.resolve(reply);
  });
  started.on("error", (error) => lost(started, error));
  started.on("exit", (code) => lost(started, new Error(`the tokenizer thread stopped (exit code ${code})`)));
  started.unref();
  return started;
}

/** Sends a request; the process stays alive until its reply is there. */
function ask(make: (id: number) => Request): Promise<Reply> {
  worker ??= start();
  const target = worker;
  const id = nextId++;
  return new Promise((resolve, reject) => {
    pending.set(id, { resolve, reject });
    target.ref();
    target.postMessage(make(id));
  });
}

/** A tokenizer that lives in the shared worker thread. */
export interface RemoteTokenizer {
  readonly key: number;
  readonly folder: string;
}

/** Forgets a tokenizer in the worker, if there is a worker. */
export function dropRemote(key: number): void {
  worker?.postMessage({ kind: "drop", key } satisfies Request);
}

/** Loads tokenizer.json and tokenizer_config.json of `folder` in the worker. FILE_INVALID, IO_FAILED, UNSUPPORTED. */
export async function loadRemote(
  folder: string,
  signal?: AbortSignal,
): Promise<{ remote: RemoteTokenizer; table: VocabularyTable; config: Readonly<Record<string, unknown>> }> {
  signal?.throwIfAborted();
  const key = nextKey++;
  const request = ask((id) => ({ kind: "load", id, key, folder }));
  const reply = await abortable(request, signal, () => dropRemote(key));
  if (reply.kind !== "loaded") throw new Error("the tokenizer thread gave another answer");
  return { remote: { key, folder }, table: reply.table, config: reply.config };
}

/** Encodes several texts in one go: one Uint32Array of ids for each. */
export async function encodeRemote(remote: RemoteTokenizer, texts: readonly string[]): Promise<Uint32Array[]> {
  const reply = await ask((id) => ({ kind: "encode", id, ...remote, texts }));
  if (reply.kind !== "encoded") throw new Error("the tokenizer thread gave another answer");
  return texts.map((_, i) => reply.ids.slice(i === 0 ? 0 : reply.ends[i - 1], reply.ends[i]));
}

function abortable<T>(job: Promise<T>, signal: AbortSignal | undefined, late: () => void): Promise<T> {
  if (!signal) return job;
  return new Promise<T>((resolve, reject) => {
    const stop = () => {
      job.then(late, () => undefined);
      reject(signal.reason);
    };
    signal.addEventListener("abort", stop, { once: true });
    job.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
