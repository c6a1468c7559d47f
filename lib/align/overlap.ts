import { resync } from "../tokens/spans.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import type { AlignedTokens } from "./tokens.js";

/** Each receiver token gets the token of the sharer's own reading of the run's text that shares most bytes with it. */
export async function overlapTokens(
  receiver: Tokenizer,
  sharer: Tokenizer,
  runs: readonly Uint32Array[],
): Promise<AlignedTokens[]> {
  const readings = await sharer.encodeAll(runs.map((ids) => receiver.decode(ids)));
  return runs.map((ids, i) => overlap(receiver, sharer, ids, readings[i] ?? new Uint32Array()));
}

function overlap(receiver: Tokenizer, sharer: Tokenizer, ids: Uint32Array, reading: Uint32Array): AlignedTokens {
  const result = new Uint32Array(ids.length);
  if (reading.length === 0) return { ids: result.fill(sharer.specials.unk ?? 0), oneToOne: 0 };
  const own = receiver.spell(ids);
  const other = sharer.spell(reading);
  const same = Buffer.compare(own.bytes, other.bytes) === 0;
  const map = same ? null : resync(own.bytes, other.bytes);
  const place = (at: number) => map?.[at] ?? at;
  let oneToOne = 0;
  let from = 0;
  let start = 0;
  for (const [i, ownEnd] of own.ends.entries()) {
    const end = place(ownEnd);
    while (from < reading.length - 1 && (other.ends[from] ?? 0) <= start) from++;
    let best = from;
    let most = 0;
    for (let j = from; j < reading.length; j++) {
      const otherStart = j === 0 ? 0 : (other.ends[j - 1] ?? 0);
      const otherEnd = other.ends[j] ?? 0;
      if (otherStart >= end) break;
      const shared = Math.min(end, otherEnd) - Math.max(start, otherStart);
      if (shared > most) {
        most = shared;
        best = j;
      }
      if (otherStart === start && otherEnd === end && end > start) oneToOne++;
    }
    result[i] = reading[best] ?? 0;
    start = end;
  }
  return { ids: result, oneToOne };
}
