import { createHash } from "node:crypto";
import { C2CError } from "../errors.js";
import { isObject } from "../weights/file.js";
import { NameTable, type NameTableParts } from "./tables.js";

/** What the main thread needs to know about a vocabulary. Ids without a token have no bytes and an empty name. */
export interface VocabularyTable {
  /** sha256 (hex) over every token's name, id and special flag. */
  readonly fingerprint: string;
  /** Highest id plus one. */
  readonly size: number;
  /** The tokens' bytes, one after another; token `id` is `bytes[offsets[id]..offsets[id + 1])`. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** [size + 1] */
  readonly offsets: Uint32Array<ArrayBuffer>;
  /** [size] bit 0: an added token that is marked special; bit 1: an added token. */
  readonly flags: Uint8Array<ArrayBuffer>;
  /** The tokens' names (vocabulary strings). */
  readonly names: NameTableParts;
  /** The decoder takes one space off the start of a text. */
  readonly stripsStart: boolean;
}

/** The parts of tokenizer.json that are read here. */
export interface TokenizerFile {
  readonly model: { readonly type: string; readonly vocab: unknown };
  readonly decoder: unknown;
  readonly added_tokens: readonly { readonly id: number; readonly content: string; readonly special: boolean }[];
}

const largestId = 1 << 22;
const models = ["BPE", "Unigram"];
const decoders = ["ByteLevel", "Sequence", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"];

export type Json = Readonly<Record<string, unknown>>;

function invalid(file: string, reason: string): C2CError<"FILE_INVALID"> {
  return new C2CError("FILE_INVALID", { file, reason }, `${file}: ${reason}`);
}

/** Parses a JSON file's text into an object. FILE_INVALID when it is none. */
export function parseObject(text: string, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalid(file, error instanceof Error ? error.message : "not JSON");
  }
  if (!isObject(value)) throw invalid(file, "not a JSON object");
  return value;
}

/** Checks the shape of a parsed tokenizer.json. FILE_INVALID when it lies, UNSUPPORTED for a model type that is not there. */
export function checkTokenizerFile(json: Json, file: string): TokenizerFile {
  const { model } = json;
  if (!isObject(model)) throw invalid(file, "no model");
  const type = typeof model["type"] === "string" ? model["type"] : "unnamed";
  if (!models.includes(type)) {
    throw new C2CError(
      "UNSUPPORTED",
      { what: `tokenizer model ${type}`, supported: models },
      `${file}: tokenizer model ${type} is not supported`,
    );
  }
  const added = json["added_tokens"] ?? [];
  if (!Array.isArray(added)) throw invalid(file, "added_tokens is not a list");
  const tokens = added.map((token: unknown) => {
    if (!isObject(token) || typeof token["id"] !== "number" || typeof token["content"] !== "string") {
      throw invalid(file, "an added token has no id or content");
    }
    return { id: token["id"], content: token["content"], special: token["special"] === true };
  });
  return { model: { type, vocab: model["vocab"] }, decoder: json["decoder"], added_tokens: tokens };
}

/** All [name, id] pairs of the model's own vocabulary. */
function* entries(file: TokenizerFile, path: string): Generator<[string, number]> {
  const { vocab } = file.model;
  if (Array.isArray(vocab)) {
    for (const [id, entry] of vocab.entries()) {
      const name: unknown = Array.isArray(entry) ? entry[0] : undefined;
      if (typeof name !== "string") throw invalid(path, `vocabulary entry ${id} has no name`);
      yield [name, id];
    }
  } else if (isObject(vocab)) {
    for (const name in vocab) {
      const id = vocab[name];
      if (typeof id !== "number") throw invalid(path, `vocabulary entry ${JSON.stringify(name)} has no id`);
      yield [name, id];
    }
  } else throw invalid(path, "the model has no vocabulary");
}

function byteAlphabet(): Int16Array {
  const table = new Int16Array(512).fill(-1);
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    table[printable ? byte : next++] = byte;
  }
  return table;
}

const utf8 = new TextEncoder();

/** Bytes that are written one after another. */
class ByteWriter {
  length = 0;
  #bytes = new Uint8Array(1 << 16);

  /** `text` in UTF-8. */
  text(text: string): void {
    this.#room(3 * text.length);
    this.length += utf8.encodeInto(text, this.#bytes.subarray(this.length)).written;
  }

  /** One byte for each character, as the alphabet says; the text in UTF-8 where a character is not in it. */
  spelt(text: string, alphabet: Int16Array): void {
    this.#room(text.length);
    for (let i = 0; i < text.length; i++) {
      const byte = alphabet[text.charCodeAt(i)] ?? -1;
      if (byte < 0) {
        this.text(text);
        return;
      }
      this.#bytes[this.length + i] = byte;
    }
    this.length += text.length;
  }

  byte(value: number): void {
    this.#room(1);
    this.#bytes[this.length++] = value;
  }

  done(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.length);
  }

  #room(count: number): void {
    if (this.length + count <= this.#bytes.length) return;
    const bytes = new Uint8Array(2 * (this.length + count));
    bytes.set(this.#bytes.subarray(0, this.length));
    this.#bytes = bytes;
  }
}

function flatten(decoder: unknown, path: string): Json[] {
  if (!isObject(decoder) || typeof decoder["type"] !== "string") {
    throw new C2CError(
      "UNSUPPORTED",
      { what: "a tokenizer without a decoder", supported: decoders },
      `${path}: no decoder`,
    );
  }
  if (decoder["type"] !== "Sequence") return [decoder];
  const list = decoder["decoders"];
  if (!Array.isArray(list)) throw invalid(path, "the decoder sequence has no decoders");
  return list.flatMap((step) => flatten(step, path));
}

interface NameReader {
  write(name: string, to: ByteWriter): void;
  /** Added tokens are plain text for a byte-level vocabulary; other decoders treat them like any token. */
  writeAdded(name: string, to: ByteWriter): void;
  readonly stripsStart: boolean;
}

/** How names become bytes, read from the decoder. UNSUPPORTED names a decoder that is not there. */
function reader(decoder: unknown, path: string): NameReader {
  const steps = flatten(decoder, path);
  const unsupported = (what: string) =>
    new C2CError("UNSUPPORTED", { what, supported: decoders }, `${path}: ${what} is not supported`);
  if (steps.some((step) => step["type"] === "ByteLevel")) {
    const alphabet = byteAlphabet();
    return {
      write: (name, to) => to.spelt(name, alphabet), // every character stands for one byte
      writeAdded: (name, to) => to.text(name),
      stripsStart: false,
    };
  }
  const edits: ((name: string) => string)[] = [];
  let fallback = false;
  let fused = false;
  let stripsStart = false;
  for (const step of steps) {
    switch (step["type"]) {
      case "Replace": {
        const pattern = isObject(step["pattern"]) ? step["pattern"]["String"] : undefined;
        const content = step["content"];
        if (typeof pattern !== "string" || typeof content !== "string")
          throw unsupported("a Replace decoder with a regular expression");
        edits.push((name) => name.replaceAll(pattern, content));
        break;
      }
      case "ByteFallback":
        fallback = true;
        break;
      case "Fuse":
        fused = true;
        break;
      case "Metaspace": {
        const mark = typeof step["replacement"] === "string" ? step["replacement"] : "▁";
        edits.push((name) => name.replaceAll(mark, " "));
        stripsStart = step["prepend_scheme"] !== "never" && step["add_prefix_space"] !== false;
        break;
      }
      case "Strip":
        if (!fused || step["content"] !== " " || step["start"] !== 1 || (step["stop"] ?? 0) !== 0) {
          throw unsupported("a Strip decoder other than one space at the start of a text");
        }
        stripsStart = true;
        break;
      default:
        throw unsupported(`tokenizer decoder ${String(step["type"])}`);
    }
  }
  const write = (name: string, to: ByteWriter) => {
    if (fallback && /^<0x[0-9A-Fa-f]{2}>$/.test(name)) to.byte(Number.parseInt(name.slice(3, 5), 16));
    else to.text(edits.reduce((text, edit) => edit(text), name));
  };
  return { write, writeAdded: write, stripsStart };
}

/** A vocabulary as it was read; `distinct`: whether no id has two names, which may be a token's of the model's own and an added one's. */
export interface Vocabulary {
  readonly table: VocabularyTable;
  readonly distinct: boolean;
}

/** Every token's bytes, name and flags. `path` is named in errors (FILE_INVALID, UNSUPPORTED). */
export function buildVocabulary(file: TokenizerFile, path: string): Vocabulary {
  const { write, writeAdded, stripsStart } = reader(file.decoder, path);
  const names: string[] = [];
  let distinct = true;
  const put = (name: string, id: number) => {
    if (!Number.isInteger(id) || id < 0 || id >= largestId) throw invalid(path, `token id ${id} is out of range`);
    distinct = distinct && (names[id] === undefined || names[id] === name);
    names[id] = name;
  };
  for (const [name, id] of entries(file, path)) put(name, id);
  const added = new Map<number, boolean>();
  for (const token of file.added_tokens) {
    put(token.content, token.id);
    added.set(token.id, token.special);
  }
  const size = names.length;
  const bytes = new ByteWriter();
  const offsets = new Uint32Array(size + 1);
  const flags = new Uint8Array(size);
  for (let id = 0; id < size; id++) {
    const name = names[id] ?? "";
    const special = added.get(id);
    if (special === undefined) write(name, bytes);
    else {
      writeAdded(name, bytes);
      flags[id] = special ? 3 : 2;
    }
    offsets[id + 1] = bytes.length;
  }
  const { parts } = NameTable.of(names);
  const fingerprint = createHash("sha256")
    .update(names.join(""))
    .update(new Uint8Array(parts.ends.buffer))
    .update(flags)
    .digest("hex");
  const table = { fingerprint, size, bytes: bytes.done(), offsets, flags, names: parts, stripsStart };
  return { table, distinct };
}
