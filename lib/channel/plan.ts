import { alignChat } from "../align/chat.js";
import type { Reading } from "../cache/prefix.js";
import { messageRows } from "../fuser/align.js";
import { checkSpan } from "../fuser/fuse.js";
import { fuserState } from "../fuser/state.js";
import { checkPositions } from "../model/forward.js";
import { toMessages } from "../model/model.js";
import { modelState } from "../model/state.js";
import { checkTokens } from "../model/tokens.js";
import { integer, invalid } from "../options.js";
import type { AlignStrategy, ChannelPrompt, EncodeOptions, Link, Model, SpanPair, TokenPrompt } from "../types.js";

/** What one link's sharer reads. `rows`: which of its rows belong to which of the receiver's, ascending on both sides. */
export interface SharerPlan extends Reading {
  readonly rows: readonly SpanPair[];
  /** How generated tokens are read by the sharer. */
  readonly strategy: AlignStrategy;
}

/** A run of the receiver's rows and the links that are fused there. */
export interface PlannedSection {
  readonly start: number;
  readonly end: number;
  readonly links: readonly number[];
}

/** A prompt as everybody reads it. The last section is never fused. */
export interface Plan {
  /** "chat": messages are sections. "whole": all but the last row are one. "sections": as the caller says. */
  readonly kind: "chat" | "whole" | "sections";
  readonly receiver: Reading;
  readonly sections: readonly PlannedSection[];
  readonly sharers: readonly SharerPlan[];
}

/** Plans a prompt for a receiver and its links. OPTION_INVALID, TOKENS_FOREIGN, CACHE_FULL for a prompt past a model's context. */
export async function planPrompt(
  receiver: Model,
  links: readonly Link[],
  prompt: ChannelPrompt,
  options: EncodeOptions,
): Promise<Plan> {
  if (isTokenPrompt(prompt)) {
    return planTokens(receiver, links, prompt);
  }
  const messages = toMessages(prompt);
  const encode: EncodeOptions = {
    ...(options.thinking !== undefined && { thinking: options.thinking }),
    ...(options.generationPrompt !== undefined && { generationPrompt: options.generationPrompt }),
    ...(options.continueLast !== undefined && { continueLast: options.continueLast }),
  };
  const strategies = links.map(strategyOf);
  if (strategies.every((strategy) => strategy === "same")) {
    const { tokens } = await receiver.encode(messages, encode);
    return planTokens(receiver, links, { tokens });
  }
  const sharers = links.map(({ sharer }, i) => {
    return { tokenizer: modelState(sharer).tokenizer, strategy: strategies[i] ?? "same" };
  });
  const chat = await alignChat(modelState(receiver).tokenizer, sharers, messages, encode);
  const count = chat.receiver.ids.length;
  if (count === 0) {
    throw invalid("prompt", "is empty");
  }
  const final = chat.sections.at(-1);
  const tail = final === undefined || final.message ? count - 1 : final.receiver.start;
  return {
    kind: "chat",
    receiver: {
      ids: chat.receiver.ids,
      positions: checkPositions(receiver, count, -1, chat.receiver.positions),
    },
    sections: chatSections(chat.sections, tail, count, links),
    sharers: links.map(({ sharer }, i) => {
      const reading = chat.sharers[i];
      if (reading === undefined) {
        throw new Error("the alignment lacks a sharer");
      }
      const rows = messageRows(chat.sections, i, count - 1);
      const own = final?.sharers[i];
      const receiverRows = count - tail;
      if (final !== undefined && own !== undefined && !final.message && own.end - own.start === receiverRows) {
        rows.push({ receiver: { start: tail, end: count }, sharer: { ...own } });
      } else if (final?.message && own !== undefined) {
        rows.push({ receiver: { start: tail, end: count }, sharer: { start: own.end - 1, end: own.end } });
      }
      return {
        ids: checkTokens(sharer.tokens(reading.ids), sharers[i]?.tokenizer.vocabulary ?? "", sharer.shape.vocab),
        positions: checkPositions(sharer, reading.ids.length, -1, reading.positions),
        rows,
        strategy: strategies[i] ?? "same",
      };
    }),
  };
}

/** A link's strategy: its own, else what its fuser was trained with. */
function strategyOf(link: Link): AlignStrategy {
  return link.align ?? fuserState(link.fuser).align;
}

function isTokenPrompt(prompt: ChannelPrompt): prompt is TokenPrompt {
  return typeof prompt === "object" && prompt !== null && "tokens" in prompt;
}

/** A template run and the message after it make one section: nothing is fused between them. */
function chatSections(
  sections: readonly {
    readonly message: boolean;
    readonly receiver: { readonly start: number; readonly end: number };
  }[],
  tail: number,
  count: number,
  links: readonly Link[],
): PlannedSection[] {
  const every = links.map((_, i) => i);
  const planned: PlannedSection[] = [];
  let start = 0;
  for (const { message, receiver } of sections) {
    const end = Math.min(receiver.end, tail);
    if (message && end > start) {
      planned.push({ start, end, links: every });
      start = end;
    }
  }
  if (start < tail) {
    planned.push({ start, end: tail, links: [] });
  }
  planned.push({ start: tail, end: count, links: [] });
  return planned;
}

function planTokens(receiver: Model, links: readonly Link[], prompt: TokenPrompt): Plan {
  const { tokenizer } = modelState(receiver);
  const ids = checkTokens(prompt.tokens, tokenizer.vocabulary, receiver.shape.vocab, "prompt.tokens").slice();
  if (ids.length === 0) {
    throw invalid("prompt.tokens", "must hold one token or more");
  }
  const positions = checkPositions(receiver, ids.length, -1, prompt.positions);
  if (prompt.sharers !== undefined && prompt.sharers.length !== links.length) {
    throw invalid("prompt.sharers", `must have one entry for each of the ${links.length} links`);
  }
  const all = { start: 0, end: ids.length };
  const sharers = links.map((link, i): SharerPlan => {
    const { sharer } = link;
    const given = prompt.sharers?.[i];
    if (given === undefined) {
      const own = checkTokens(sharer.tokens(ids), modelState(sharer).tokenizer.vocabulary, sharer.shape.vocab);
      const places = checkPositions(sharer, ids.length, -1, positions);
      return { ids: own, positions: places, rows: [{ receiver: all, sharer: all }], strategy: "same" };
    }
    const option = `prompt.sharers[${i}]`;
    const own = checkTokens(given.tokens, modelState(sharer).tokenizer.vocabulary, sharer.shape.vocab, option).slice();
    if (given.rows === undefined && own.length !== ids.length) {
      throw invalid(`${option}.rows`, "must be given where the numbers of tokens differ");
    }
    const rows = (given.rows ?? [{ receiver: all, sharer: all }]).map((span) => {
      return checkSpan(span, ids.length, own.length, `${option}.rows`);
    });
    checkAscending(rows, `${option}.rows`);
    const places = checkPositions(sharer, own.length, -1, given.positions);
    return { ids: own, positions: places, rows, strategy: strategyOf(link) };
  });
  return {
    kind: prompt.sections === undefined ? "whole" : "sections",
    receiver: { ids, positions },
    sections: tokenSections(ids.length, links.length, prompt),
    sharers,
  };
}

function checkAscending(rows: readonly SpanPair[], option: string): void {
  for (let i = 1; i < rows.length; i += 1) {
    const before = rows[i - 1];
    const here = rows[i];
    if (before && here && (here.receiver.start < before.receiver.end || here.sharer.start < before.sharer.end)) {
      throw invalid(option, "must ascend without overlaps on both sides");
    }
  }
}

function tokenSections(count: number, links: number, prompt: TokenPrompt): PlannedSection[] {
  const every = Array.from({ length: links }, (_, i) => i);
  const sections = prompt.sections ?? [
    { length: count - 1, links: every },
    { length: 1, links: [] },
  ];
  const planned: PlannedSection[] = [];
  let start = 0;
  for (const [i, section] of sections.entries()) {
    const option = `prompt.sections[${i}]`;
    const length = integer(`${option}.length`, section.length, prompt.sections === undefined ? 0 : 1);
    const chosen = new Set(section.links.map((link) => integer(`${option}.links`, link, 0, links - 1)));
    if (length > 0) {
      planned.push({ start, end: start + length, links: [...chosen].sort((a, b) => a - b) });
    }
    start += length;
  }
  if (start !== count) {
    throw invalid("prompt.sections", `cover ${start} tokens, the prompt has ${count}`);
  }
  return planned;
}

/** The parts of row pairs that lie in the receiver's rows [start, end). */
export function rowsWithin(rows: readonly SpanPair[], start: number, end: number): SpanPair[] {
  const within: SpanPair[] = [];
  for (const { receiver, sharer } of rows) {
    const from = Math.max(start, receiver.start);
    const to = Math.min(end, receiver.end);
    if (to > from) {
      const shift = sharer.start - receiver.start;
      within.push({ receiver: { start: from, end: to }, sharer: { start: from + shift, end: to + shift } });
    }
  }
  return within;
}
