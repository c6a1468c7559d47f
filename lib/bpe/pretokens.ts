import type { Json } from "./file.js";

/**
 * How a text is cut before merging; no merge crosses a cut. "gpt2" (Radford et al., 2019): a word takes the space before it, digits
 * and marks run together. "qwen" (the pattern of Qwen 2 to 3): digits stand alone, a word takes any one mark before it.
 */
export type BpePattern = "gpt2" | "qwen";

const contractions = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const patterns: Readonly<Record<BpePattern, RegExp>> = {
  gpt2: /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu,
  qwen: new RegExp(
    `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
    "gu",
  ),
};

/** The pieces of a text, in order; joined they are the text. */
export function* pretokens(text: string, pattern: BpePattern): Generator<string> {
  for (const [piece] of text.matchAll(patterns[pattern])) yield piece;
}

/** The pre-tokenizer entry of tokenizer.json. */
export function preTokenizerEntry(pattern: BpePattern): Json {
  if (pattern === "gpt2") return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const split = { type: "Split", pattern: { Regex: patterns.qwen.source }, behavior: "Isolated", invert: false };
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false };
  return { type: "Sequence", pretokenizers: [split, bytes] };
}
