import type { DocumentBatch } from "../../typings/native.js";
import { invalid } from "../options.js";
import type { Tokens } from "../types.js";

/** Token ids, and which of them are learnt. */
export interface Document {
  /** Ids of the vocabulary that is trained (OPTION_INVALID), at most the context and one more. */
  readonly tokens: Tokens | Uint32Array;
  /** 1 where the token at this index is a target of the loss; default: all but the first, which follows nothing. */
  readonly targets?: Uint8Array;
}

/**
 * Lays documents one after another, without padding. Tokens behind a document's last target are left out: nothing that is scored sees
 * them. OPTION_INVALID for ids outside the vocabulary, a first token as target, documents past the context and batches without targets.
 */
export function documentBatch(documents: readonly Document[], vocab: number, context: number): DocumentBatch {
  const tokens: number[] = [];
  const lengths: number[] = [];
  const targetRows: number[] = [];
  const targetIds: number[] = [];
  for (const { tokens: ids, targets } of documents) {
    if (!(ids instanceof Uint32Array)) throw invalid("tokens", "must be a Uint32Array");
    if (targets !== undefined && !(targets instanceof Uint8Array && targets.length === ids.length)) {
      throw invalid("targets", `must be a Uint8Array with one value for each of the ${ids.length} tokens`);
    }
    if (targets?.[0]) throw invalid("targets", "a document's first token follows nothing and cannot be a target");
    const last = targets === undefined ? ids.length - 1 : targets.findLastIndex((value) => value !== 0);
    if (last <= 0) continue;
    if (last > context)
      throw invalid("tokens", `a document of ${last + 1} tokens is longer than the context of ${context}`);
    const first = tokens.length;
    for (let i = 0; i <= last; i++) {
      const id = ids[i] ?? 0;
      if (id >= vocab) throw invalid("tokens", `id ${id} is not below the vocabulary's size ${vocab}`);
      if (i < last) tokens.push(id);
      if (i > 0 && (targets === undefined || targets[i])) {
        targetRows.push(first + i - 1);
        targetIds.push(id);
      }
    }
    lengths.push(last);
  }
  if (targetRows.length === 0) throw invalid("data", "a batch has no token to learn");
  return {
    tokens: Uint32Array.from(tokens),
    lengths: Uint32Array.from(lengths),
    targetRows: Uint32Array.from(targetRows),
    targetIds: Uint32Array.from(targetIds),
  };
}
