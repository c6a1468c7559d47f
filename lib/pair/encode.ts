import { chatMlSpecials, pretokens } from "../bpe/index.js";
import type { Document } from "../index.js";
import { Tokenizer } from "../tokens/tokenizer.js";
import type { Draft } from "./documents.js";

/** How both tokenizers cut texts: a word behind a mark stands alone, so that an answer may follow a question mark. */
export const PATTERN = "gpt2";

const specials = new RegExp(`(${chatMlSpecials.map((token) => token.replaceAll("|", "\\|")).join("|")})`, "u");

/** Drafts as token documents. The small world has few words: each is encoded once. */
export class DraftEncoder {
  readonly #tokenizer: Tokenizer;
  readonly #pieces = new Map<string, Uint32Array>();

  private constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** Reads a folder's tokenizer. FILE_INVALID, IO_FAILED. */
  static async open(folder: string): Promise<DraftEncoder> {
    return new DraftEncoder(await Tokenizer.load(folder));
  }

  /** The tokens of a draft's whole text, with those of its target stretches marked. */
  async encode(draft: Draft): Promise<Document> {
    const tokens: number[] = [];
    const targets: number[] = [];
    for (const { text, target } of draft) {
      for (const piece of pieces(text)) {
        for (const id of await this.#piece(piece)) {
          tokens.push(id);
          targets.push(target ? 1 : 0);
        }
      }
    }
    return { tokens: Uint32Array.from(tokens), targets: Uint8Array.from(targets) };
  }

  async #piece(text: string): Promise<Uint32Array> {
    const known = this.#pieces.get(text);
    if (known) return known;
    const ids = await this.#tokenizer.encode(text);
    this.#pieces.set(text, ids);
    return ids;
  }
}

function* pieces(text: string): Generator<string> {
  for (const [i, part] of text.split(specials).entries()) {
    if (i % 2 === 1) yield part;
    else yield* pretokens(part, PATTERN);
  }
}
