import type { Tokenizer } from "../tokens/tokenizer.js";
import type { AlignStrategy } from "../types.js";
import { overlapTokens } from "./overlap.js";
import { TokenMap } from "./tokenmap.js";

/** A receiver's tokens as the sharer reads them, one for one. */
export interface AlignedTokens {
  readonly ids: Uint32Array;
  /** How many receiver tokens have exactly one counterpart. */
  readonly oneToOne: number;
}

/** Aligns several runs of receiver tokens, each on its own. */
export async function alignRuns(
  receiver: Tokenizer,
  sharer: Tokenizer,
  runs: readonly Uint32Array[],
  strategy: AlignStrategy,
): Promise<AlignedTokens[]> {
  switch (strategy) {
    case "same":
      return runs.map((ids) => ({
        ids,
        oneToOne: ids.reduce((sum, id) => sum + (sameBytes(receiver, sharer, id) ? 1 : 0), 0),
      }));
    case "bytes":
      return overlapTokens(receiver, sharer, runs);
    default: {
      const map = TokenMap.of(receiver, sharer);
      await map.add(runs);
      return runs.map((ids) => map.read(ids, strategy));
    }
  }
}

function sameBytes(receiver: Tokenizer, sharer: Tokenizer, id: number): boolean {
  return Buffer.compare(receiver.bytes(id), sharer.bytes(id)) === 0;
}

/**
 * The sharer's token for each receiver token, as many as there are `ids`.
 * - "same": the ids as they are.
 * - "first", "longest": every token's text is encoded on its own; of several ids the first, or the one with the most characters.
 *   Tokens that hold part of a character lose it; tokens with a special meaning map to the sharer's of that meaning.
 * - "bytes": the whole text is encoded; each token gets the sharer's token that shares most bytes with it (the earlier of equals).
 */
export async function alignTokens(
  receiver: Tokenizer,
  sharer: Tokenizer,
  ids: Uint32Array,
  strategy: AlignStrategy,
): Promise<Uint32Array> {
  const [aligned] = await alignRuns(receiver, sharer, [ids], strategy);
  return aligned ? aligned.ids : new Uint32Array();
}
