import type { RenderOptions } from "../tokens/template.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import type { AlignStrategy, Message, Span } from "../types.js";
import { shareSections } from "./sections.js";
import { alignRuns } from "./tokens.js";

/** One model's tokens and their positions; positions skip where another model's template is longer. */
export interface PositionedTokens {
  readonly ids: Uint32Array;
  readonly positions: Uint32Array;
}

/** A conversation as a receiver and its sharers read it. Message rows pair one to one; template rows may differ in number. */
export interface ChatAlignment {
  readonly receiver: PositionedTokens;
  /** `oneToOne`: share of message tokens with exactly one counterpart, 0 to 1 (1 when there are none). */
  readonly sharers: readonly (PositionedTokens & { readonly oneToOne: number })[];
  /** In order; token ranges for each model, of equal length where `message`. */
  readonly sections: readonly {
    readonly message: boolean;
    readonly receiver: Span;
    readonly sharers: readonly Span[];
  }[];
}

/** Collects one model's tokens. */
class Rows {
  readonly #ids: number[] = [];
  readonly #positions: number[] = [];

  add(ids: Uint32Array, position: number): Span {
    const start = this.#ids.length;
    for (const [i, id] of ids.entries()) {
      this.#ids.push(id);
      this.#positions.push(position + i);
    }
    return { start, end: this.#ids.length };
  }

  done(): PositionedTokens {
    return { ids: Uint32Array.from(this.#ids), positions: Uint32Array.from(this.#positions) };
  }
}

/**
 * Reads a conversation with the receiver and every sharer. Messages: the receiver's tokens, aligned. Template: each model's own tokens,
 * as many positions as the longest reading takes. With the strategy "same" a sharer reads the receiver's ids row for row.
 * OPTION_INVALID when a template refuses the messages or the readings do not show the same ones.
 */
export async function alignChat(
  receiver: Tokenizer,
  sharers: readonly { readonly tokenizer: Tokenizer; readonly strategy: AlignStrategy }[],
  messages: readonly Message[],
  options: RenderOptions = {},
): Promise<ChatAlignment> {
  const own = await receiver.prompt(messages, options);
  const prompts = await Promise.all(
    sharers.map(({ tokenizer, strategy }) => (strategy === "same" ? own : tokenizer.prompt(messages, options))),
  );
  const shared = shareSections([own, ...prompts]);
  const runs = shared
    .filter(({ message }) => message)
    .map(({ ranges }) => own.ids.subarray(ranges[0]?.start, ranges[0]?.end));
  const aligned = await Promise.all(
    sharers.map(({ tokenizer, strategy }) => alignRuns(receiver, tokenizer, runs, strategy)),
  );

  const receiverRows = new Rows();
  const sharerRows = sharers.map(() => new Rows());
  let position = 0;
  let run = 0;
  const sections = shared.map(({ message, ranges }) => {
    const index = message ? run++ : -1;
    const ownSpan = receiverRows.add(own.ids.subarray(ranges[0]?.start, ranges[0]?.end), position);
    const spans = sharerRows.map((rows, s) => {
      const range = ranges[s + 1];
      const ids = message ? aligned[s]?.[index]?.ids : prompts[s]?.ids.subarray(range?.start, range?.end);
      return rows.add(ids ?? new Uint32Array(), position);
    });
    position += Math.max(...[ownSpan, ...spans].map(({ start, end }) => end - start));
    return { message, receiver: ownSpan, sharers: spans };
  });
  const total = runs.reduce((sum, ids) => sum + ids.length, 0);
  const share = (s: number) =>
    total === 0 ? 1 : (aligned[s] ?? []).reduce((sum, { oneToOne }) => sum + oneToOne, 0) / total;
  return {
    receiver: receiverRows.done(),
    sharers: sharerRows.map((rows, s) => ({ ...rows.done(), oneToOne: share(s) })),
    sections,
  };
}
