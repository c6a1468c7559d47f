import { Tokenizer } from "@huggingface/tokenizers";
import { C2CError } from "../errors.js";
import { isObject } from "../weights/file.js";
import { MergeTable, type MergeTableParts, NameTable, type NameTableParts } from "./tables.js";
import { type Json, parseObject } from "./vocabulary.js";

/** A BPE tokenizer's vocabulary and merges. */
export interface BpeTables {
  readonly names: NameTableParts;
  readonly merges: MergeTableParts;
}

/** What a tokenizer needs to encode, on its way between threads: tables travel without a copy. */
export interface EncoderParts {
  /** tokenizer.json, without what is in the tables. */
  readonly json: string;
  readonly config: Json;
  /** Null for a model that is no BPE, which the library keeps in its own form. */
  readonly tables: BpeTables | null;
}

/** The library's BPE model, as far as it is used here (its own types cannot be read by modules). */
interface BpeModel {
  tokens_to_ids: Map<string, number>;
  bpe_ranks: Map<string, number>;
}

/**
 * In place of a map of the library's: it looks things up. Asked for anything else, by a version of the library that does otherwise, it
 * fails instead of seeming empty.
 */
class LookUp extends Map<string, number> {
  override has(name: string): boolean {
    return this.get(name) !== undefined;
  }
  override set(): never {
    return LookUp.#otherwise();
  }
  override delete(): never {
    return LookUp.#otherwise();
  }
  override clear(): never {
    return LookUp.#otherwise();
  }
  override get size(): never {
    return LookUp.#otherwise();
  }
  override keys(): never {
    return LookUp.#otherwise();
  }
  override values(): never {
    return LookUp.#otherwise();
  }
  override entries(): never {
    return LookUp.#otherwise();
  }
  override forEach(): never {
    return LookUp.#otherwise();
  }
  override [Symbol.iterator](): never {
    return LookUp.#otherwise();
  }

  static #otherwise(): never {
    throw new TypeError("@huggingface/tokenizers uses its vocabulary otherwise than by looking names up");
  }
}

/** Ids by name: those of added tokens, which may have the name of another of the model's own, then those of the table. */
class TokenIds extends LookUp {
  readonly #added: ReadonlyMap<string, number>;
  readonly #names: NameTable;

  constructor(added: ReadonlyMap<string, number>, names: NameTable) {
    super();
    this.#added = added;
    this.#names = names;
  }

  override get(name: string): number | undefined {
    return this.#added.get(name) ?? this.#names.find(name);
  }
}

/** `["a","b"]`: without an escape, a quote ends a name. */
function pairOf(key: string): readonly (string | undefined)[] {
  if (key.includes("\\")) return JSON.parse(key);
  const between = key.indexOf('","', 2); // the first name may be a comma
  return [key.slice(2, between), key.slice(between + 3, -2)];
}

/** Ranks by the library's key, a pair of names in JSON. */
class Ranks extends LookUp {
  readonly #ids: ReadonlyMap<string, number>;
  readonly #merges: MergeTable;

  constructor(ids: ReadonlyMap<string, number>, merges: MergeTable) {
    super();
    this.#ids = ids;
    this.#merges = merges;
  }

  override get(key: string): number | undefined {
    const [first, second] = pairOf(key);
    const left = this.#ids.get(first ?? "");
    const right = left === undefined ? undefined : this.#ids.get(second ?? "");
    return left === undefined || right === undefined ? undefined : this.#merges.rank(left, right);
  }
}

/** A merge that no vocabulary has: whether the library still keeps merges as `Ranks` reads them. */
const probe = ["\0", "\0\0"] as const;

function bpeModel(tokenizer: Tokenizer): BpeModel {
  const model: Partial<BpeModel> = tokenizer.model;
  const { tokens_to_ids, bpe_ranks } = model;
  if (tokens_to_ids instanceof Map && bpe_ranks instanceof Map && bpe_ranks.get(JSON.stringify(probe)) === 0)
    return model as BpeModel;
  throw new TypeError("@huggingface/tokenizers keeps its vocabulary otherwise than it did");
}

function create(json: Json, config: Json, path: string): Tokenizer {
  const parts = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  try {
    return new Tokenizer({ ...parts, ...json, added_tokens: json["added_tokens"] ?? [] }, config);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const unknown = /^Unknown (.+)$/.exec(reason)?.[1];
    if (unknown !== undefined)
      throw new C2CError("UNSUPPORTED", { what: `tokenizer part ${unknown}`, supported: [] }, `${path}: ${reason}`);
    throw new C2CError("FILE_INVALID", { file: path, reason }, `${path}: ${reason}`);
  }
}

function onTables(parts: EncoderParts, tables: BpeTables, path: string): { tokenizer: Tokenizer; ids: TokenIds } {
  const tokenizer = create(parseObject(parts.json, path), parts.config, path);
  const model = bpeModel(tokenizer);
  const ids = new TokenIds(model.tokens_to_ids, new NameTable(tables.names));
  model.tokens_to_ids = ids;
  model.bpe_ranks = new Ranks(ids, new MergeTable(tables.merges));
  return { tokenizer, ids };
}

/**
 * The library's tokenizer. A BPE model's maps of strings are replaced by its tables: those of 150,000 tokens take 45 MB and a sixth of a
 * second. FILE_INVALID, UNSUPPORTED; `path` is named in errors.
 */
export function createEncoder(parts: EncoderParts, path: string): Tokenizer {
  return parts.tables === null
    ? create(parseObject(parts.json, path), parts.config, path)
    : onTables(parts, parts.tables, path).tokenizer;
}

/** The names of a merge; null for what is none. */
function namesOf(merge: unknown): readonly [string, string] | null {
  const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
  if (!Array.isArray(pair) || pair.length !== 2) return null;
  const [left, right]: unknown[] = pair;
  return typeof left === "string" && typeof right === "string" ? [left, right] : null;
}

/**
 * The parts of a BPE tokenizer, read from a tokenizer.json whose names are in `names`. FILE_INVALID where a merge is no pair of tokens,
 * UNSUPPORTED; `path` is named in errors.
 */
export function bpeParts(json: Json, config: Json, names: NameTable, path: string): EncoderParts {
  const invalid = (reason: string) => new C2CError("FILE_INVALID", { file: path, reason }, `${path}: ${reason}`);
  const { vocab, merges, ...model } = isObject(json["model"]) ? json["model"] : {};
  if (!Array.isArray(merges)) throw invalid("the model has no merges");
  // The token for what is unknown is looked up before added tokens are.
  const unknown = String(model["unk_token"]);
  const kept = isObject(vocab) && Object.hasOwn(vocab, unknown) ? { [unknown]: vocab[unknown] } : {};
  const small = { ...json, model: { ...model, vocab: kept, merges: [probe] } };
  const table = MergeTable.withRoom(merges.length);
  const tables = { names: names.parts, merges: table.parts };
  const parts = { json: JSON.stringify(small), config, tables };
  const { ids } = onTables(parts, tables, path);
  for (const [rank, merge] of merges.entries()) {
    const pair = namesOf(merge);
    const [left, right] = pair === null ? [] : pair.map((name) => ids.get(name));
    if (left === undefined || right === undefined) throw invalid(`merge ${rank} is no pair of tokens`);
    table.set(left, right, rank);
  }
  return parts;
}
