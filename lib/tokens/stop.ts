import { C2CError } from "../errors.js";

/**
 * Looks for stop strings in text that arrives in pieces and holds back what may be the beginning of one. The match is the one that
 * ends first (of those, the longest), so the outcome does not depend on how the text was cut.
 */
export class StopMatcher {
  readonly #stops: readonly string[];
  #held = "";
  #match: string | null = null;

  /** An empty stop string is OPTION_INVALID. */
  constructor(stops: readonly string[]) {
    if (stops.includes("")) {
      throw new C2CError(
        "OPTION_INVALID",
        { option: "stop", reason: "a stop string is empty" },
        "stop: a stop string is empty",
      );
    }
    this.#stops = stops;
  }

  /** Text that may be shown, and the stop string once it is found (it and what follows are swallowed). */
  push(text: string): { text: string; match: string | null } {
    if (this.#match !== null) return { text: "", match: this.#match };
    const all = this.#held + text;
    let end = Number.POSITIVE_INFINITY;
    let found: string | null = null;
    for (const stop of this.#stops) {
      const at = all.indexOf(stop);
      const stopEnd = at + stop.length;
      if (at < 0 || stopEnd > end || (stopEnd === end && found !== null && found.length >= stop.length)) continue;
      end = stopEnd;
      found = stop;
    }
    if (found !== null) {
      this.#match = found;
      this.#held = "";
      return { text: all.slice(0, end - found.length), match: found };
    }
    const keep = this.#heldLength(all);
    this.#held = all.slice(all.length - keep);
    return { text: all.slice(0, all.length - keep), match: null };
  }

  /** What was held back, when no more text comes. */
  end(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  /** Length of the longest end of `text` that begins a stop string. */
  #heldLength(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
