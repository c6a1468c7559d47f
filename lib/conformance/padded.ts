import { shareSections } from "../align/sections.js";
import { alignRuns } from "../align/tokens.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import type { AlignStrategy, Message } from "../types.js";

/** One model's side of a padded alignment. */
export interface PaddedSide {
  readonly ids: number[];
  /** True where a pad was put in. */
  readonly pads: boolean[];
  readonly text: string;
}

/** The Python reference's padded alignment. All lists but `sections` have one length, and sections' ranges are both sides'. */
export interface ReferenceAlignment {
  readonly receiver: PaddedSide;
  readonly sharer: PaddedSide;
  /** True inside messages. */
  readonly message: boolean[];
  readonly sections: { type: "template" | "message"; range: [number, number] }[];
}

/** `addGenerationPrompt` and `removeLastSuffix` default to false. */
export interface ReferenceAlignOptions {
  readonly strategy: AlignStrategy;
  readonly addGenerationPrompt?: boolean;
  readonly removeLastSuffix?: boolean;
}

/** A pair's alignment with pads, to compare with the reference. OPTION_INVALID as `alignChat`. */
export async function alignChatReference(
  receiver: Tokenizer,
  sharer: Tokenizer,
  messages: readonly Message[],
  options: ReferenceAlignOptions,
): Promise<ReferenceAlignment> {
  const rendering = {
    generationPrompt: options.addGenerationPrompt ?? false,
    continueLast: options.removeLastSuffix ?? false,
  };
  const [own, other] = await Promise.all([receiver.prompt(messages, rendering), sharer.prompt(messages, rendering)]);
  const sections = shareSections([own, other]).map(({ message, ranges }) => ({
    message,
    receiver: own.ids.subarray(ranges[0]?.start, ranges[0]?.end),
    sharer: other.ids.subarray(ranges[1]?.start, ranges[1]?.end),
  }));
  const runs = sections.filter(({ message }) => message).map((section) => section.receiver);
  const aligned = await alignRuns(receiver, sharer, runs, options.strategy);
  const result: ReferenceAlignment = {
    receiver: { ids: [], pads: [], text: own.text },
    sharer: { ids: [], pads: [], text: other.text },
    message: [],
    sections: [],
  };
  let run = 0;
  for (const section of sections) {
    const theirs = section.message ? (aligned[run++]?.ids ?? section.sharer) : section.sharer;
    const length = Math.max(section.receiver.length, theirs.length);
    const start = result.message.length;
    pad(result.receiver, section.receiver, length, padOf(receiver));
    pad(result.sharer, theirs, length, padOf(sharer));
    for (let i = 0; i < length; i++) result.message.push(section.message);
    result.sections.push({ type: section.message ? "message" : "template", range: [start, start + length] });
  }
  return result;
}

/** A model without a pad token pads with its end token. */
function padOf(tokenizer: Tokenizer): number {
  return tokenizer.specials.pad ?? tokenizer.specials.eos ?? 0;
}

function pad({ ids, pads }: PaddedSide, from: Uint32Array, length: number, filler: number): void {
  for (let i = 0; i < length; i++) {
    ids.push(from[i] ?? filler);
    pads.push(i >= from.length);
  }
}
