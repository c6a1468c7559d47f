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

const loaded = new Map<number, Promise<Tokenizer>>();

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

interface Files {
  readonly path: string;
  readonly json: Record<string, unknown>;
  readonly config: Record<string, unknown>;
}

async function readFiles(folder: string): Promise<Files> {
  const path = join(folder, "tokenizer.json");
  const configPath = join(folder, "tokenizer_config.json");
  const json = parseObject(await readText(path), path);
  const config = parseObject(await readText(configPath), configPath);
  return { path, json, config };
}

async function load({ id, key, folder }: Extract<Request, { kind: "load" }>): Promise<Reply> {
  const { path, json, config } = await readFiles(folder);
  const table = buildVocabulary(checkTokenizerFile(json, path), path);
  loaded.set(key, Promise.resolve(create(json, config, path)));
  const { added_tokens_decoder: _, ...settings } = config;
  return { kind: "loaded", id, table, config: settings };
}

/** The tokenizer of `key`; read again when this thread has not loaded it. */
function get(key: number, folder: string): Promise<Tokenizer> {
  let entry = loaded.get(key);
  if (!entry) {
    entry = readFiles(folder).then(({ json, config, path }) => create(json, config, path));
    loaded.set(key, entry);
    entry.catch(() => loaded.delete(key));
  }
  return entry;
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

function buffersOf({ bytes, offsets, flags, nameEnds }: VocabularyTable): ArrayBuffer[] {
  return [bytes.buffer, offsets.buffer, flags.buffer, nameEnds.buffer];
}

async function serve(port: MessagePort, request: Request): Promise<void> {
  if (request.kind === "drop") {
    loaded.delete(request.key);
    return;
  }
  const { id } = request;
  try {
    if (request.kind === "load") {
      const reply = await load(request);
      port.postMessage(reply, reply.kind === "loaded" ? buffersOf(reply.table) : []);
    } else {
      const encoded = encode(await get(request.key, request.folder), request.texts);
      port.postMessage({ kind: "encoded", id, ...encoded } satisfies Reply, [encoded.ids.buffer, encoded.ends.buffer]);
    }
  } catch (error) {
    port.postMessage({ kind: "failed", id, error: plain(error) } satisfies Reply);
  }
}

if (parentPort) {
  const port = parentPort;
  port.on("message", (request: Request) => void serve(port, request));
}
