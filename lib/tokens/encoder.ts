import { Tokenizer } from "@huggingface/tokenizers";
import { C2CError } from "../errors.js";
import { MergeTable, type MergeTableParts, NameTable, type NameTableParts } from "./tables.js";

type Json = Readonly<Record<string, unknown>>;
/** Names, each with its id. */
type Names = readonly (readonly [string, number])[];

/** What a BPE tokenizer needs to encode, on its way between threads: tables travel without a copy. */
export interface EncoderParts {
  /** tokenizer.json without its vocabulary and merges. */
  readonly json: Json;
  readonly config: Json;
  readonly names: NameTableParts;
  readonly merges: MergeTableParts;
  /** Names whose ids have another name in the table. */
  readonly others: Names;
}

/** The library's BPE model, as far as it is used here (its own types cannot be read by modules). */
interface BpeModel {
  tokens_to_ids: Map<string, number>;
  bpe_ranks: Map<string, number>;
}

function bpeModel(tokenizer: Tokenizer): BpeModel {
  const model: Partial<BpeModel> = tokenizer.model;
  const { tokens_to_ids, bpe_ranks } = model;
  if (tokens_to_ids instanceof Map && bpe_ranks instanceof Map) return model as BpeModel;
  throw new TypeError("@huggingface/tokenizers keeps its vocabulary otherwise than in maps");
}

/** Ids by name: the few that were set, then those of the table. Iteration sees only the former. */
class TokenIds extends Map<string, number> {
  readonly #names: NameTable;

  constructor(names: NameTable, set: Names) {
    super(set);
    this.#names = names;
  }

  override get(name: string): number | undefined {
    return super.get(name) ?? this.#names.find(name);
  }

  override has(name: string): boolean {
    return this.get(name) !== undefined;
  }
}

/** `["a","b"]`: without an escape, a quote ends a name. */
function pairOf(key: string): readonly (string | undefined)[] {
  if (key.includes("\\")) return JSON.parse(key);
  const between = key.indexOf('","', 2); // the first name may be a comma
  return [key.slice(2, between), key.slice(between + 3, -2)];
}

/** Ranks by the library's key, a pair of names in JSON. */
class Ranks extends Map<string, number> {
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

/** The library's tokenizer of a whole tokenizer.json. FILE_INVALID, UNSUPPORTED; `path` is named in errors. */
export function createTokenizer(json: Json, config: Json, path: string): Tokenizer {
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

/**
 * The library's BPE tokenizer with tables in place of its maps of strings: those of 150,000 tokens take 45 MB and half a second.
 * FILE_INVALID, UNSUPPORTED; `path` is named in errors.
 */
export function createEncoder({ json, config, names, merges, others }: EncoderParts, path: string): Tokenizer {
  const tokenizer = createTokenizer(json, config, path);
  const model = bpeModel(tokenizer);
  model.tokens_to_ids = new TokenIds(new NameTable(names), [...others, ...model.tokens_to_ids]);
  model.bpe_ranks = new Ranks(model.tokens_to_ids, new MergeTable(merges));
  return tokenizer;
}

/**
 * The parts of a BPE tokenizer, read from a tokenizer.json whose names are in `names` and `others`. FILE_INVALID where a merge is no
 * pair of tokens (the Rust library refuses it as well), UNSUPPORTED; `path` is named in errors.
 */
export function encoderParts(json: Json, config: Json, names: NameTable, others: Names, path: string): EncoderParts {
  const invalid = (reason: string) => new C2CError("FILE_INVALID", { file: path, reason }, `${path}: ${reason}`);
  const { vocab, merges, ...model } = json["model"] as { readonly vocab: Json; readonly merges: unknown };
  if (!Array.isArray(merges)) throw invalid("the model has no merges");
  // The token for what is unknown is looked up before added tokens are.
  const unknown = String((model as Json)["unk_token"]);
  const kept = Object.hasOwn(vocab, unknown) ? { [unknown]: vocab[unknown] } : {};
  const table = MergeTable.withRoom(merges.length);
  const small = { ...json, model: { ...model, vocab: kept, merges: [] } };
  const parts = { json: small, config, names: names.parts, merges: table.parts, others };
  const ids = bpeModel(createEncoder(parts, path)).tokens_to_ids;
  for (const [rank, merge] of merges.entries()) {
    const pair: unknown = typeof merge === "string" ? merge.split(" ", 2) : merge;
    const [left, right] = Array.isArray(pair) ? pair.map((name) => ids.get(name)) : [];
    if (left === undefined || right === undefined) throw invalid(`merge ${rank} is no pair of tokens`);
    table.set(left, right, rank);
  }
  return parts;
}
