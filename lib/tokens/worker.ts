import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type MessagePort, parentPort } from "node:worker_threads";
import { Tokenizer } from "@huggingface/tokenizers";
import { C2CError, type ErrorCode, type ErrorDetails, ioError } from "../errors.js";
import { buildVocabulary, checkTokenizerFile, parseObject, type VocabularyTable } from "./vocabulary.js";

/** What the worker is asked. `key` names a loaded tokenizer; `folder` lets the worker load it again if it is not there. */
export type Request =
  | { readonly kind: "load"; readonly id: number; readonly key: number; readonly folder: string }
  | {
      readonly kind: "encode";
      readonly id: number;
      readonly key: number;
      readonly folder: string;
      readonly texts: readonly string[];
    }
  | { readonly kind: "drop"; readonly key: number };

/** An error that survives the way between threads. */
export interface PlainError {
  readonly code: ErrorCode | null;
  readonly details: ErrorDetails[ErrorCode] | null;
  readonly message: string;
}

/** What the worker answers. `ids` holds all texts' ids, one after another; `ends[i]` is where those of text i end. */
export type Reply =
  | {
      readonly kind: "loaded";
      readonly id: number;
      readonly table: VocabularyTable;
      readonly config: Readonly<Record<string, unknown>>;
    }
  | { readonly kind: "encoded"; readonly id: number; readonly ids: Uint32Array; readonly ends: Uint32Array }
  | { readonly kind: "failed"; readonly id: number; readonly error: PlainError };

interface Loaded {
  readonly tokenizer: Tokenizer;
  readonly table: VocabularyTable;
  readonly config: Record<string, unknown>;
}

const loaded = new Map<number, Promise<Loaded>>();

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw ioError(error, path, "read");
  }
}

function create(json: Record<string, unknown>, config: Record<string, unknown>, path: string): Tokenizer {
  for (const part of ["normalizer", "pre_tokenizer", "post_processor", "decoder"]) json[part] ??= null;
  json["added_tokens"] ??= [];
  try {
    return new Tokenizer(json, config);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const unknown = /^Unknown (.+)$/.exec(reason)?.[1];
    if (unknown !== undefined)
      throw new C2CError("UNSUPPORTED", { what: `tokenizer part ${unknown}`, supported: [] }, `${path}: ${reason}`);
    throw new C2CError("FILE_INVALID", { file: path, reason }, `${path}: ${reason}`);
  }
}

async function load(folder: string): Promise<Loaded> {
  const path = join(folder, "tokenizer.json");
  const configPath = join(folder, "tokenizer_config.json");
  const json = parseObject(await readText(path), path);
  const config = parseObject(await readText(configPath), configPath);
  const table = buildVocabulary(checkTokenizerFile(json, path), path);
  return { tokenizer: create(json, config, path), table, config };
}

function get(key: number, folder: string): Promise<Loaded> {
  let entry = loaded.get(key);
  if (!entry) {
    entry = load(folder);
    loaded.set(key, entry);
    entry.catch(() => loaded.delete(key));
  }
  return entry;
}

function encode(tokenizer: Tokenizer, texts: readonly string[]): { ids: Uint32Array; ends: Uint32Array } {
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
  if (request.kind === "drop") {
    loaded.delete(request.key);
    return;
  }
  const { id } = request;
  try {
    const { tokenizer, table, config } = await get(request.key, request.folder);
    let reply: Reply;
    if (request.kind === "load") reply = { kind: "loaded", id, table, config };
    else reply = { kind: "encoded", id, ...encode(tokenizer, request.texts) };
    const moved = reply.kind === "loaded" ? [] : [reply.ids.buffer as ArrayBuffer, reply.ends.buffer as ArrayBuffer];
    port.postMessage(reply, moved);
  } catch (error) {
    port.postMessage({ kind: "failed", id, error: plain(error) } satisfies Reply);
  }
}

if (parentPort) {
  const port = parentPort;
  port.on("message", (request: Request) => void serve(port, request));
}
