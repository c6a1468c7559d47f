import { alignChat } from "../align/chat.js";
import { messageRows } from "../fuser/align.js";
import { toMessages } from "../model/model.js";
import { type ModelState, modelState } from "../model/state.js";
import { checkIds } from "../model/tokens.js";
import { invalid } from "../options.js";
import type { AlignStrategy, Message, Pair, Sample, Span, SpanPair } from "../types.js";

/** One model's tokens and positions. */
export interface Rows {
  readonly ids: Uint32Array;
  readonly positions: Uint32Array;
}

/** A sample as both models read it. */
export interface PreparedSample {
  readonly receiver: Rows;
  readonly sharer: Rows;
  /** Row behind each of the receiver's sections; the last section holds the response. */
  readonly sections: readonly number[];
  /** Rows that are fused, each pair inside one section. */
  readonly fused: readonly SpanPair[];
  /** The receiver's tokens that are learnt: the last message and what the template puts behind it. */
  readonly target: Span;
}

/** How samples are read. */
export interface Reader {
  readonly pair: Pair;
  readonly strategy: AlignStrategy;
  /** Whether the response's own rows are fused too. */
  readonly response: boolean;
  /** Rows that a sample is cut to. */
  readonly maxTokens: number;
}

const PROMPT = { thinking: false, generationPrompt: true } as const;
const WHOLE = { thinking: false, generationPrompt: false } as const;

/**
 * Reads a conversation that ends with an assistant's message for training; null where `maxTokens` cuts the whole response off.
 * With the strategy "same" everything before the prompt's last token is fused, else the messages before the response are.
 * OPTION_INVALID for other conversations, and for `sharerMessages` that do not align row for row.
 */
export async function prepareSample(sample: Sample, reader: Reader): Promise<PreparedSample | null> {
  const messages = toMessages(sample.messages);
  if (messages.at(-1)?.role !== "assistant" || messages.length < 2)
    throw invalid("messages", "a sample ends with an assistant's message, after one message or more");
  const other =
    sample.sharerMessages === undefined ? null : sharerConversation(sample.sharerMessages, messages, reader);
  const read = await (reader.strategy === "same" ? readSame : readAligned)(reader, messages, other);
  return cut(read, reader.maxTokens);
}

/** The sharer's own conversation, with a response where it has to read one. */
function sharerConversation(
  given: readonly Message[],
  messages: readonly Message[],
  reader: Reader,
): readonly Message[] {
  const own = toMessages(given);
  if (own.at(-1)?.role === "assistant") return own;
  if (reader.response) throw invalid("sharerMessages", "must hold a response where responses are fused");
  return [...own, ...messages.slice(-1)];
}

/** The receiver's ids go to the sharer as they are. */
async function readSame(
  reader: Reader,
  messages: readonly Message[],
  other: readonly Message[] | null,
): Promise<PreparedSample> {
  const { receiver, sharer } = reader.pair;
  const state = modelState(receiver);
  const [own, theirs] = await Promise.all([promptAndWhole(state, messages), other && promptAndWhole(state, other)]);
  const rows = own.whole.length;
  const tail = own.prompt - 1;
  if (theirs && (theirs.prompt !== own.prompt || (reader.response && theirs.whole.length !== rows)))
    throw invalid("sharerMessages", `must take as many tokens as messages: ${own.prompt}, not ${theirs.prompt}`);
  const ids = (theirs ?? own).whole.subarray(0, reader.response ? rows : tail);
  const fused: SpanPair[] = tail > 0 ? [{ receiver: { start: 0, end: tail }, sharer: { start: 0, end: tail } }] : [];
  if (reader.response) fused.push({ receiver: { start: tail, end: rows }, sharer: { start: tail, end: rows } });
  return {
    receiver: { ids: own.whole, positions: counting(rows) },
    sharer: { ids: checkIds(ids, sharer.shape.vocab, "messages"), positions: counting(ids.length) },
    sections: tail > 0 ? [tail, rows] : [rows],
    fused,
    target: { start: own.prompt, end: rows },
  };
}

/** A conversation's tokens, and how many of them are there before the response is. */
async function promptAndWhole(
  { tokenizer }: ModelState,
  messages: readonly Message[],
): Promise<{ whole: Uint32Array; prompt: number }> {
  const [whole, prompt] = await Promise.all([
    tokenizer.prompt(messages, WHOLE),
    tokenizer.prompt(messages.slice(0, -1), PROMPT),
  ]);
  const begins = prompt.ids.length < whole.ids.length && prompt.ids.every((id, i) => whole.ids[i] === id);
  // Where the template writes a response otherwise than it asks for one, the response's own text decides.
  const start = begins ? prompt.ids.length : whole.spans.at(-1)?.start;
  if (start === undefined || start < 1) throw invalid("messages", "the chat template does not show the response");
  return { whole: whole.ids, prompt: start };
}

/** Messages are aligned token by token, template parts are each model's own. */
async function readAligned(
  reader: Reader,
  messages: readonly Message[],
  other: readonly Message[] | null,
): Promise<PreparedSample> {
  const own = modelState(reader.pair.receiver).tokenizer;
  const sharers = [{ tokenizer: modelState(reader.pair.sharer).tokenizer, strategy: reader.strategy }];
  const [chat, theirs] = await Promise.all([
    alignChat(own, sharers, messages, WHOLE),
    other && alignChat(own, sharers, other, WHOLE),
  ]);
  const answer = chat.sections.findLastIndex(({ message }) => message);
  const response = chat.sections[answer];
  if (!response || response.receiver.start < 1)
    throw invalid("messages", "the chat templates do not show the response");
  const rows = chat.receiver.ids.length;
  const before = chat.sections.slice(0, answer);
  const tail = before.findLast(({ message }) => message)?.receiver.end ?? 0;
  const ends = before
    .filter(({ message, receiver }) => message && receiver.end > receiver.start)
    .map(({ receiver }) => receiver.end);
  const fused = messageRows(before, 0, rows);
  if (reader.response) {
    // As in generation: template rows where both models have as many, then the response token by token.
    for (const { receiver, sharers: spans } of chat.sections.slice(
      before.findLastIndex(({ message }) => message) + 1,
    )) {
      const span = spans[0];
      if (span && span.end - span.start === receiver.end - receiver.start && receiver.end > receiver.start)
        fused.push({ receiver, sharer: span });
    }
  }
  const sharer = theirs?.sharers[0] ?? chat.sharers[0];
  if (!sharer) throw new Error("the alignment has no sharer");
  if (theirs) checkSections(chat.sections, theirs.sections, reader.response ? chat.sections.length : answer);
  return {
    receiver: chat.receiver,
    sharer: { ids: checkIds(sharer.ids, reader.pair.sharer.shape.vocab, "messages"), positions: sharer.positions },
    sections: tail > 0 ? [...new Set([...ends, rows])] : [rows],
    fused,
    target: { start: response.receiver.start, end: rows },
  };
}

type Sections = Awaited<ReturnType<typeof alignChat>>["sections"];

/** The sharer's own conversation has the same sections as the receiver's, of the same lengths, up to section `count`. */
function checkSections(sections: Sections, theirs: Sections, count: number): void {
  for (const [i, section] of sections.slice(0, count).entries()) {
    const other = theirs[i];
    const wanted = length(section.sharers[0]);
    if (
      !other ||
      other.message !== section.message ||
      length(other.sharers[0]) !== wanted ||
      length(other.receiver) !== length(section.receiver)
    ) {
      const found = other ? length(other.sharers[0]) : 0;
      throw invalid(
        "sharerMessages",
        `must align row for row with messages: part ${i} takes ${wanted} tokens, not ${found}`,
      );
    }
  }
}

function length(span: Span | undefined): number {
  return span ? span.end - span.start : 0;
}

function counting(count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => i);
}

/** Leaves out what nothing learns from: rows past `maxTokens`, the row of the last token, the sharer's rows behind the last fused one. */
function cut(sample: PreparedSample, maxTokens: number): PreparedSample | null {
  const target = { start: sample.target.start, end: Math.min(sample.target.end, maxTokens) };
  if (target.end <= target.start) return null;
  const rows = target.end - 1;
  const fused = sample.fused.flatMap(({ receiver, sharer }) => {
    const end = Math.min(receiver.end, rows);
    if (end <= receiver.start) return [];
    const { start } = receiver;
    return [{ receiver: { start, end }, sharer: { start: sharer.start, end: sharer.start + end - start } }];
  });
  const heard = fused.reduce((most, { sharer }) => Math.max(most, sharer.end), 0);
  const first = ({ ids, positions }: Rows, count: number): Rows => ({
    ids: ids.subarray(0, count),
    positions: positions.subarray(0, count),
  });
  const sections = sample.sections.filter((end) => end < rows);
  return {
    // The last token is a target and no row.
    receiver: {
      ids: sample.receiver.ids.subarray(0, target.end),
      positions: sample.receiver.positions.subarray(0, rows),
    },
    sharer: first(sample.sharer, heard),
    sections: [...sections, rows],
    fused,
    target,
  };
}
