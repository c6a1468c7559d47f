import { C2CError } from "../errors.js";
import { invalid } from "../options.js";
import type { TokenId, Tokens } from "../types.js";

const vocabularies = new WeakMap<object, string>();

/** Marks an array of ids as a vocabulary's, given by its fingerprint. */
export function tag(ids: Uint32Array, vocabulary: string): Tokens {
  vocabularies.set(ids, vocabulary);
  return ids as unknown as Tokens;
}

/** TOKENS_FOREIGN for an array of another vocabulary, OPTION_INVALID for ids outside [0, size) and for what is no Uint32Array. */
export function checkTokens(tokens: Tokens, vocabulary: string, size: number, option = "tokens"): Uint32Array {
  if (!(tokens instanceof Uint32Array)) {
    throw invalid(option, "must be a Uint32Array; see Model.tokens and Model.encode");
  }
  const actual = vocabularies.get(tokens);
  if (actual !== undefined && actual !== vocabulary) {
    const hint = "these tokens belong to another vocabulary; Model.tokens marks ids explicitly";
    throw new C2CError("TOKENS_FOREIGN", { expected: vocabulary, actual }, hint);
  }
  for (const id of tokens) {
    if (id >= size) {
      throw invalid(option, `id ${id} is not below the vocabulary's size ${size}`);
    }
  }
  return tokens;
}

/** Copies ids after checking that each is an integer in [0, size): OPTION_INVALID. */
export function checkIds(ids: Iterable<number>, size: number, option = "tokens"): Uint32Array {
  const list = Array.from(ids);
  for (const id of list) {
    if (!Number.isInteger(id) || id < 0 || id >= size) {
      throw invalid(option, `id ${String(id)} is not an integer from 0 to ${size - 1}`);
    }
  }
  return Uint32Array.from(list);
}

/** A number as a token id. */
export function tokenId(id: number): TokenId {
  return id as TokenId;
}
