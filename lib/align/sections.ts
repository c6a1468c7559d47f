import { C2CError } from "../errors.js";
import type { TokenizedPrompt } from "../tokens/tokenizer.js";
import type { Span } from "../types.js";

/** A part of a conversation, all template or all message, and where each reading has it (token ranges, in the order of the readings). */
export interface SharedSection {
  readonly message: boolean;
  readonly ranges: readonly Span[];
}

/**
 * Cuts several models' readings of the same messages into parts that correspond; parts that are empty everywhere are left out.
 * OPTION_INVALID when the readings do not show the same messages.
 */
export function shareSections(prompts: readonly TokenizedPrompt[]): SharedSection[] {
  const [first] = prompts;
  if (!first) return [];
  for (const prompt of prompts) {
    if (
      prompt.spans.length !== first.spans.length ||
      prompt.spans.some((span, i) => span.message !== first.spans[i]?.message)
    ) {
      const reason = "the models' chat templates do not show the same messages";
      throw new C2CError("OPTION_INVALID", { option: "messages", reason }, `messages: ${reason}`);
    }
  }
  const sections: SharedSection[] = [];
  const put = (message: boolean, ranges: readonly Span[]) => {
    if (ranges.some(({ start, end }) => end > start)) sections.push({ message, ranges });
  };
  const at = prompts.map(() => 0);
  const upTo = (ends: readonly number[]) =>
    put(
      false,
      ends.map((end, p) => ({ start: at[p] ?? 0, end })),
    );
  for (const i of first.spans.keys()) {
    const ranges = prompts.map(({ spans }) => ({ start: spans[i]?.start ?? 0, end: spans[i]?.end ?? 0 }));
    upTo(ranges.map(({ start }) => start));
    put(true, ranges);
    for (const [p, { end }] of ranges.entries()) at[p] = end;
  }
  upTo(prompts.map(({ ids }) => ids.length));
  return sections;
}
