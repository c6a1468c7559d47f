import { type MessagePort, parentPort } from "node:worker_threads";
import type { Tokenizer } from "@huggingface/tokenizers";
import { C2CError, type ErrorCode, type ErrorDetails } from "../errors.js";
import { createEncoder, type EncoderParts } from "./encoder.js";
import { readTokenizer, type TokenizerParts } from "./read.js";

/** What a thread is asked: to read a folder's files, to hold `encoder` ready under `key`, to encode with it, to forget it. */
export type Request =
  | { readonly kind: "read"; readonly id: number; readonly folder: string }
  | { readonly kind: "open"; readonly key: number; readonly folder: string; readonly encoder: EncoderParts }
  | { readonly kind: "encode"; readonly id: number; readonly key: number; readonly texts: readonly string[] }
  | { readonly kind: "drop"; readonly key: number };

/** An error that survives the way between threads. */
export interface PlainError {
  readonly code: ErrorCode | null;
  readonly details: ErrorDetails[ErrorCode] | null;
  readonly message: string;
}

/** What a thread answers. `ids` holds all texts' ids, one after another; `ends[i]` is where those of text i end. */
export type Reply =
  | { readonly kind: "read"; readonly id: number; readonly parts: TokenizerParts }
  | { readonly kind: "encoded"; readonly id: number; readonly ids: Uint32Array; readonly ends: Uint32Array }
  | { readonly kind: "failed"; readonly id: number; readonly error: PlainError };

/** By key; an error where one could not be made, for those who ask it to encode. */
const open = new Map<number, Tokenizer | { readonly error: unknown }>();

function create(encoder: EncoderParts, folder: string): Tokenizer | { readonly error: unknown } {
  try {
    return createEncoder(encoder, folder);
  } catch (error) {
    return { error };
  }
}

function encode(
  tokenizer: Tokenizer,
  texts: readonly string[],
): { ids: Uint32Array<ArrayBuffer>; ends: Uint32Array<ArrayBuffer> } {
  const all: number[] = [];
  const ends = new Uint32Array(texts.length);
  for (const [i, text] of texts.entries()) {
    // A character that the vocabulary has no token for (and no unknown token) is left out.
    const ids: readonly (number | undefined)[] =
      text === "" ? [] : tokenizer.encode(text, { add_special_tokens: false }).ids;
    for (const id of ids) if (id !== undefined) all.push(id);
    ends[i] = all.length;
  }
  return { ids: Uint32Array.from(all), ends };
}

function plain(error: unknown): PlainError {
  if (error instanceof C2CError) return { code: error.code, details: error.details, message: error.message };
  return { code: null, details: null, message: error instanceof Error ? error.message : String(error) };
}

async function serve(port: MessagePort, request: Request): Promise<void> {
  if (request.kind === "drop") open.delete(request.key);
  else if (request.kind === "open") open.set(request.key, create(request.encoder, request.folder));
  else await answer(port, request);
}

async function answer(port: MessagePort, request: Extract<Request, { id: number }>): Promise<void> {
  const { id } = request;
  try {
    if (request.kind === "read") {
      const parts = await readTokenizer(request.folder);
      const { bytes, offsets, flags } = parts.table;
      port.postMessage({ kind: "read", id, parts } satisfies Reply, [bytes.buffer, offsets.buffer, flags.buffer]);
      return;
    }
    const tokenizer = open.get(request.key);
    if (!tokenizer) throw new Error(`no tokenizer ${request.key} is open`);
    if ("error" in tokenizer) throw tokenizer.error;
    const encoded = encode(tokenizer, request.texts);
    port.postMessage({ kind: "encoded", id, ...encoded } satisfies Reply, [encoded.ids.buffer, encoded.ends.buffer]);
  } catch (error) {
    port.postMessage({ kind: "failed", id, error: plain(error) } satisfies Reply);
  }
}

if (parentPort) {
  const port = parentPort;
  port.on("message", (request: Request) => void serve(port, request));
}
