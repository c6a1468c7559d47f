import type { EncoderParts } from "./encoder.js";
import type { TokenizerParts } from "./read.js";
import { Thread } from "./thread.js";

/** A tokenizer that lives in the shared encoding thread. */
export interface RemoteTokenizer {
  readonly key: number;
  readonly folder: string;
  readonly encoder: EncoderParts;
  /** Nobody will ask anything more of it; what was asked is still answered. */
  dropped: boolean;
}

/** A large vocabulary is ten times its size while it is read: the thread that reads it ends, and all that goes with it at once. */
const reading = new Thread({ name: "cache-to-cache vocabulary" }, false);

/** Keys that the encoding thread holds. */
const held = new Set<number>();

/** What encoding leaves behind is short-lived; little room for young objects keeps the thread small. */
const resourceLimits = { maxYoungGenerationSizeMb: 6 };
const encoding = new Thread({ name: "cache-to-cache tokens", resourceLimits }, true, () => held.clear());

let nextKey = 1;

/** The encoding thread holds `remote` ready; after a thread was lost, the next one does. */
function hold({ key, folder, encoder }: RemoteTokenizer): void {
  encoding.start();
  if (held.has(key)) return;
  held.add(key);
  encoding.tell({ kind: "open", key, folder, encoder });
}

/** Forgets a tokenizer in the encoding thread, if there is one. */
export function dropRemote(remote: RemoteTokenizer): void {
  remote.dropped = true;
  if (held.delete(remote.key) && encoding.running) encoding.tell({ kind: "drop", key: remote.key });
}

/** Loads tokenizer.json and tokenizer_config.json of `folder`. FILE_INVALID, IO_FAILED, UNSUPPORTED. */
export async function loadRemote(
  folder: string,
  signal?: AbortSignal,
): Promise<{ remote: RemoteTokenizer } & Omit<TokenizerParts, "encoder">> {
  signal?.throwIfAborted();
  const request = reading.ask((id) => ({ kind: "read", id, folder }));
  const reply = await abortable(request, signal);
  if (reply.kind !== "read") throw new Error("the tokenizer thread gave another answer");
  const { table, config, encoder } = reply.parts;
  const remote = { key: nextKey++, folder, encoder, dropped: false };
  hold(remote); // its thread starts while the model is loaded
  return { remote, table, config };
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
  hold(remote);
  const encoded = encoding
    .ask((id) => ({ kind: "encode", id, key: remote.key, texts }))
    .then((reply) => {
      if (reply.kind !== "encoded") throw new Error("the tokenizer thread gave another answer");
      return texts.map((_, i) => reply.ids.slice(i === 0 ? 0 : reply.ends[i - 1], reply.ends[i]));
    });
  const forget = () => remote.dropped && dropRemote(remote); // asked for before it was dropped, and held anew for that
  encoded.finally(forget).catch(() => undefined);
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

function abortable<T>(job: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return job;
  return new Promise<T>((resolve, reject) => {
    const stop = () => {
      job.catch(() => undefined);
      reject(signal.reason);
    };
    signal.addEventListener("abort", stop, { once: true });
    job.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
