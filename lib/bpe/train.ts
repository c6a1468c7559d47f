import { integer, invalid } from "../options.js";
import { alphabet, byteNames } from "./alphabet.js";
import { Heap } from "./heap.js";
import { type BpePattern, pretokens } from "./pretokens.js";

/** What a byte-level BPE vocabulary is trained to. */
export interface BpeOptions {
  /** Most tokens, special ones and the 256 bytes included. Training stops earlier where no pair is frequent enough. */
  readonly vocab: number;
  /** Tokens with a name of their own; they come first, in this order, and cut the training texts. Default: those of ChatML. */
  readonly specials?: readonly string[];
  /** Default "gpt2". */
  readonly pattern?: BpePattern;
  /** A pair seen less often than this is not merged. Default 2. */
  readonly minFrequency?: number;
}

/** A trained vocabulary: `tokens[id]` is a token's name, `merges` in order of learning. */
export interface BpeVocabulary {
  readonly tokens: readonly string[];
  readonly merges: readonly (readonly [string, string])[];
  readonly specials: readonly string[];
  readonly pattern: BpePattern;
}

/** The special tokens of a ChatML tokenizer: padding and end of text, begin and end of a message. */
export const chatMlSpecials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] as const;

interface Word {
  symbols: number[];
  readonly count: number;
}
interface Candidate {
  readonly pair: number;
  readonly count: number;
}

/** Pairs of ids as one number; ids stay below 2²². */
const WIDTH = 1 << 22;

/**
 * Learns merges from texts (Sennrich et al., 2016, on bytes): again and again the most frequent pair of neighbours becomes a token;
 * of equally frequent pairs the one with the smaller left id, then the smaller right id. The result depends on the multiset of
 * pieces alone, not on the order of the texts. OPTION_INVALID.
 */
export async function trainBpe(
  texts: Iterable<string> | AsyncIterable<string>,
  options: BpeOptions,
): Promise<BpeVocabulary> {
  const { specials = chatMlSpecials, pattern = "gpt2" } = options;
  const least = specials.length + alphabet.length;
  const vocab = integer("vocab", options.vocab, least, WIDTH);
  const minFrequency = integer("minFrequency", options.minFrequency ?? 2, 1);
  if (new Set(specials).size !== specials.length || specials.includes("")) {
    throw invalid("specials", "must be different strings that are not empty");
  }
  const tokens = [...specials, ...alphabet];
  const ids = new Map(tokens.map((name, id) => [name, id]));
  const words = await countWords(texts, pattern, specials, ids);
  const merges: (readonly [string, string])[] = [];
  const merger = new Merger(words);
  while (tokens.length < vocab) {
    const pair = merger.best(minFrequency);
    if (pair === null) break;
    const names = [tokens[Math.floor(pair / WIDTH)] ?? "", tokens[pair % WIDTH] ?? ""] as const;
    const name = names[0] + names[1];
    // Two ways to the same token ("a"+"bc" and "ab"+"c") share one id.
    const id = ids.get(name) ?? tokens.length;
    if (id === tokens.length) {
      tokens.push(name);
      ids.set(name, id);
    }
    merges.push(names);
    merger.merge(pair, id);
  }
  return { tokens, merges, specials, pattern };
}

/** The different pieces of all texts, as byte ids, with how often each occurs; in the order of their names. */
async function countWords(
  texts: Iterable<string> | AsyncIterable<string>,
  pattern: BpePattern,
  specials: readonly string[],
  ids: ReadonlyMap<string, number>,
): Promise<Word[]> {
  const counts = new Map<string, number>();
  const cut = specials.length === 0 ? null : new RegExp(specials.map(escapeRegExp).join("|"), "u");
  for await (const text of texts) {
    for (const part of cut === null ? [text] : text.split(cut)) {
      for (const piece of pretokens(part, pattern)) counts.set(piece, (counts.get(piece) ?? 0) + 1);
    }
  }
  return [...counts]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([piece, count]) => ({ symbols: byteNames(piece).map((name) => ids.get(name) ?? 0), count }));
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
}

/** Keeps the number of each pair, and in which words it may be, while merges are made. */
class Merger {
  readonly #words: readonly Word[];
  readonly #counts = new Map<number, number>();
  readonly #places = new Map<number, Set<number>>();
  /** May hold outdated counts: those are dropped, or put back corrected, when their turn comes. */
  readonly #heap = new Heap<Candidate>((a, b) => a.count > b.count || (a.count === b.count && a.pair < b.pair));

  constructor(words: readonly Word[]) {
    this.#words = words;
    const touched = new Set<number>();
    for (const index of words.keys()) this.#count(index, 1, touched);
    this.#offer(touched);
  }

  /** The most frequent pair, or null where none is frequent enough. */
  best(minFrequency: number): number | null {
    for (let top = this.#heap.pop(); top !== undefined; top = this.#heap.pop()) {
      const count = this.#counts.get(top.pair) ?? 0;
      if (count === top.count) return count >= minFrequency ? top.pair : null;
    }
    return null;
  }

  merge(pair: number, id: number): void {
    const left = Math.floor(pair / WIDTH);
    const right = pair % WIDTH;
    const touched = new Set<number>();
    for (const index of this.#places.get(pair) ?? []) {
      const word = this.#words[index] as Word;
      this.#count(index, -1, touched);
      const symbols: number[] = [];
      for (let i = 0; i < word.symbols.length; i++) {
        const here = word.symbols[i] ?? 0;
        if (here === left && word.symbols[i + 1] === right) {
          symbols.push(id);
          i++;
        } else symbols.push(here);
      }
      word.symbols = symbols;
      this.#count(index, 1, touched);
    }
    this.#places.delete(pair);
    this.#counts.delete(pair);
    touched.delete(pair);
    this.#offer(touched);
  }

  #count(index: number, sign: 1 | -1, touched: Set<number>): void {
    const { symbols, count } = this.#words[index] as Word;
    for (let i = 1; i < symbols.length; i++) {
      const pair = (symbols[i - 1] ?? 0) * WIDTH + (symbols[i] ?? 0);
      this.#counts.set(pair, (this.#counts.get(pair) ?? 0) + sign * count);
      touched.add(pair);
      if (sign < 0) continue;
      const places = this.#places.get(pair);
      if (places) places.add(index);
      else this.#places.set(pair, new Set([index]));
    }
  }

  #offer(touched: Iterable<number>): void {
    for (const pair of touched) {
      const count = this.#counts.get(pair) ?? 0;
      if (count > 0) this.#heap.push({ pair, count });
      else this.#counts.delete(pair);
    }
  }
}
