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

/**
 * A large vocabulary makes much garbage while it is read and lives long: with little room for young objects the thread takes 70 MB less,
 * and no longer. The heap as a whole may grow as far as without it.
 */
const resourceLimits = { maxYoungGenerationSizeMb: 6 };

function start(): Worker {
  const options = { name: "cache-to-cache tokens", execArgv: [], resourceLimits };
  const started = new Worker(new URL("./worker.js", import.meta.url), options);
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

interface Wanted {
  readonly texts: readonly string[];
  resolve(ids: Uint32Array[]): void;
  reject(error: unknown): void;
}

/** What is to be encoded once the code that runs now has asked for all it wants; by the tokenizer's key. */
const outbox = new Map<number, Wanted[]>();

/** Encodes several texts: one Uint32Array of ids for each. What is asked for in one go, by whomever, travels in one message. */
export function encodeRemote(remote: RemoteTokenizer, texts: readonly string[]): Promise<Uint32Array[]> {
  return new Promise((resolve, reject) => {
    const waiting = outbox.get(remote.key);
    if (waiting) {
      waiting.push({ texts, resolve, reject });
      return;
    }
    const wanted: Wanted[] = [{ texts, resolve, reject }];
    outbox.set(remote.key, wanted);
    queueMicrotask(() => {
      outbox.delete(remote.key);
      send(remote, wanted);
    });
  });
}

function send(remote: RemoteTokenizer, wanted: readonly Wanted[]): void {
  const texts = wanted.flatMap((one) => one.texts);
  const encoded = ask((id) => ({ kind: "encode", id, ...remote, texts })).then((reply) => {
    if (reply.kind !== "encoded") throw new Error("the tokenizer thread gave another answer");
    return texts.map((_, i) => reply.ids.slice(i === 0 ? 0 : reply.ends[i - 1], reply.ends[i]));
  });
  encoded.then(
    (ids) => {
      let first = 0;
      for (const { texts, resolve } of wanted) {
        resolve(ids.slice(first, first + texts.length));
        first += texts.length;
      }
    },
    (error: unknown) => {
      // One text must not fail the others.
      if (wanted.length > 1) for (const one of wanted) send(remote, [one]);
      else for (const one of wanted) one.reject(error);
    },
  );
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
