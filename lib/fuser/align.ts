import { alignChat } from "../align/chat.js";
import { alignRuns } from "../align/tokens.js";
import { modelState } from "../model/state.js";
import { tag } from "../model/tokens.js";
import type { Alignment, AlignStrategy, EncodeOptions, Message, Pair, Span, SpanPair } from "../types.js";

/** Positions 0, 1, 2, … of `count` rows. */
export function counting(count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => i);
}

/** Message sections of an aligned chat as fused rows; the receiver's row `last`, the prompt's last, is left out. */
export function messageRows(
  sections: readonly { readonly message: boolean; readonly receiver: Span; readonly sharers: readonly Span[] }[],
  sharer: number,
  last: number,
): SpanPair[] {
  const rows: SpanPair[] = [];
  for (const section of sections) {
    const other = section.sharers[sharer];
    const end = Math.min(section.receiver.end, last);
    const { start } = section.receiver;
    if (section.message && other !== undefined && end > start) {
      rows.push({ receiver: { start, end }, sharer: { start: other.start, end: other.start + end - start } });
    }
  }
  return rows;
}

/** Aligns an encoded prompt of the receiver, or reads it row for row where the strategy is "same". */
export async function alignPrompt(
  pair: Pair,
  ids: Uint32Array,
  messages: readonly Message[],
  options: EncodeOptions,
  strategy: AlignStrategy,
): Promise<Alignment> {
  const receiver = modelState(pair.receiver);
  const sharer = modelState(pair.sharer);
  if (strategy === "same") {
    const positions = counting(ids.length);
    const tokens = pair.sharer.tokens(ids);
    const [read] = await alignRuns(receiver.tokenizer, sharer.tokenizer, [ids], strategy);
    const all = { start: 0, end: Math.max(0, ids.length - 1) };
    return {
      strategy,
      receiver: { tokens: tag(ids.slice(), receiver.tokenizer.vocabulary), positions },
      sharer: { tokens, positions: positions.slice() },
      fused: all.end > 0 ? [{ receiver: all, sharer: { ...all } }] : [],
      oneToOne: ids.length === 0 ? 1 : (read?.oneToOne ?? 0) / ids.length,
    };
  }
  const chat = await alignChat(receiver.tokenizer, [{ tokenizer: sharer.tokenizer, strategy }], messages, options);
  const [other] = chat.sharers;
  if (other === undefined) {
    throw new Error("the alignment has no sharer");
  }
  return {
    strategy,
    receiver: { tokens: tag(chat.receiver.ids, receiver.tokenizer.vocabulary), positions: chat.receiver.positions },
    sharer: { tokens: tag(other.ids, sharer.tokenizer.vocabulary), positions: other.positions },
    fused: messageRows(chat.sections, 0, chat.receiver.ids.length - 1),
    oneToOne: other.oneToOne,
  };
}
