import { shareSections } from "../align/sections.js";
import { alignRuns } from "../align/tokens.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import type { AlignStrategy, Message } from "../types.js";

/** The Python reference's padded alignment, in its own words: "slm" is the receiver, "llm" the sharer. All lists have one length. */
export interface ReferenceAlignment {
  readonly slm_ids_padded: number[];
  readonly llm_ids_padded: number[];
  /** True inside messages. */
  readonly message_mask: boolean[];
  /** True where a pad was put in. */
  readonly slm_padding_mask: boolean[];
  readonly llm_padding_mask: boolean[];
  readonly sections: { type: "template" | "message"; slm_range: [number, number]; llm_range: [number, number] }[];
  readonly slm_text: string;
  readonly llm_text: string;
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
  const [slm, llm] = await Promise.all([receiver.prompt(messages, rendering), sharer.prompt(messages, rendering)]);
  const sections = shareSections([slm, llm]).map(({ message, ranges }) => ({
    message,
    slm: slm.ids.subarray(ranges[0]?.start, ranges[0]?.end),
    llm: llm.ids.subarray(ranges[1]?.start, ranges[1]?.end),
  }));
  const runs = sections.filter(({ message }) => message).map((section) => section.slm);
  const aligned = await alignRuns(receiver, sharer, runs, options.strategy);
  const result: ReferenceAlignment = {
    slm_ids_padded: [],
    llm_ids_padded: [],
    message_mask: [],
    slm_padding_mask: [],
    llm_padding_mask: [],
    sections: [],
    slm_text: slm.text,
    llm_text: llm.text,
  };
  let run = 0;
  for (const section of sections) {
    const llmIds = section.message ? (aligned[run++]?.ids ?? section.llm) : section.llm;
    const length = Math.max(section.slm.length, llmIds.length);
    const start = result.message_mask.length;
    pad(result.slm_ids_padded, result.slm_padding_mask, section.slm, length, padOf(receiver));
    pad(result.llm_ids_padded, result.llm_padding_mask, llmIds, length, padOf(sharer));
    for (let i = 0; i < length; i++) result.message_mask.push(section.message);
    const range: [number, number] = [start, start + length];
    result.sections.push({ type: section.message ? "message" : "template", slm_range: range, llm_range: [...range] });
  }
  return result;
}

/** A model without a pad token pads with its end token. */
function padOf(tokenizer: Tokenizer): number {
  return tokenizer.specials.pad ?? tokenizer.specials.eos ?? 0;
}

function pad(ids: number[], mask: boolean[], from: Uint32Array, length: number, filler: number): void {
  for (let i = 0; i < length; i++) {
    ids.push(from[i] ?? filler);
    mask.push(i >= from.length);
  }
}
