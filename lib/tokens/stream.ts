/** What a stream needs to know about the vocabulary. */
export interface StreamSource {
  bytes(id: number): Uint8Array;
  isSpecial(id: number): boolean;
}

/** Turns ids into text one by one; a character appears when its last byte has come, never half of it. */
export class TokenStream {
  readonly #source: StreamSource;
  readonly #skipSpecial: boolean;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #stripsStart: boolean;

  /** `stripsStart`: one space at the very start belongs to the vocabulary, not to the text. */
  constructor(source: StreamSource, options: { readonly skipSpecial: boolean; readonly stripsStart: boolean }) {
    this.#source = source;
    this.#skipSpecial = options.skipSpecial;
    this.#stripsStart = options.stripsStart;
  }

  /** The text that this id completes; may be empty. */
  push(id: number): string {
    if (this.#skipSpecial && this.#source.isSpecial(id)) return "";
    return this.#strip(this.#decoder.decode(this.#source.bytes(id), { stream: true }));
  }

  /** What is left: U+FFFD for a character that never became whole, else nothing. */
  end(): string {
    return this.#strip(this.#decoder.decode());
  }

  #strip(text: string): string {
    if (!this.#stripsStart || text === "") return text;
    this.#stripsStart = false;
    return text.startsWith(" ") ? text.slice(1) : text;
  }
}
