import { tokenId } from "../model/tokens.js";
import { StopMatcher } from "../tokens/stop.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import type { GenerationEvent } from "../types.js";

type TokenEvent = Extract<GenerationEvent, { type: "token" }>;

/**
 * Turns chosen ids into token events whose texts, joined, are the generated text. While text is held back (it may begin a stop
 * string, or a character is not complete) the events wait too, so that whatever is left at the end still has one to go out with.
 */
export class Writer {
  readonly #tokenizer: Tokenizer;
  readonly #stream: ReturnType<Tokenizer["stream"]>;
  readonly #stops: StopMatcher;
  #waiting: TokenEvent[] = [];
  #given = 0;
  #passed = 0;
  #count = 0;
  #text = "";

  constructor(tokenizer: Tokenizer, stops: readonly string[]) {
    this.#tokenizer = tokenizer;
    this.#stream = tokenizer.stream({ skipSpecial: true });
    this.#stops = new StopMatcher(stops);
  }

  /** Tokens taken so far. */
  get count(): number {
    return this.#count;
  }

  /** The text of all events that were handed out. */
  get text(): string {
    return this.#text;
  }

  /** Takes a token; `match` is the stop string that it completed. Hands out the events that are ready. */
  push(id: number, logits: Float32Array | null): { events: TokenEvent[]; match: string | null } {
    const piece = this.#stream.push(id);
    const { text, match } = this.#stops.push(piece);
    this.#given += piece.length;
    this.#passed += text.length;
    this.#waiting.push({
      type: "token",
      id: tokenId(id),
      text,
      index: this.#count,
      ...(logits === null ? {} : { logits }),
    });
    this.#count += 1;
    const held = match === null && (this.#given > this.#passed || this.#partial(id, piece));
    return { events: held ? [] : this.#flush(), match };
  }

  /** The end without a stop string, or with one that the very last characters complete. */
  end(): { events: TokenEvent[]; match: string | null } {
    const { text, match } = this.#stops.push(this.#stream.end());
    const rest = match === null ? text + this.#stops.end() : text;
    const last = this.#waiting.pop();
    if (last !== undefined) {
      this.#waiting.push({ ...last, text: last.text + rest });
    }
    return { events: this.#flush(), match };
  }

  #flush(): TokenEvent[] {
    const events = this.#waiting;
    this.#waiting = [];
    for (const event of events) {
      this.#text += event.text;
    }
    return events;
  }

  /** Whether the token leaves a character begun. */
  #partial(id: number, piece: string): boolean {
    // What ends in a character of one byte leaves none begun.
    if (piece.charCodeAt(piece.length - 1) < 0x80) {
      return false;
    }
    if (this.#tokenizer.isSpecial(id)) {
      return false;
    }
    const bytes = this.#tokenizer.bytes(id);
    for (let back = 1; back <= Math.min(4, bytes.length); back += 1) {
      const byte = bytes[bytes.length - back] ?? 0;
      if (byte >= 0xc0) {
        const need = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
        return back < need;
      }
      if (byte < 0x80) {
        return false;
      }
    }
    return bytes.length > 0 && piece === "";
  }
}
