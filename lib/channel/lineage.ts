import { commonRows, type Reading } from "../cache/prefix.js";
import { type Plan, rowsWithin } from "./plan.js";

/**
 * What the rows of a fused cache were made of, beside their tokens. Two rows are the same when everything before them is, the same
 * sharers' rows were fused into them, and they read the same rows in the form that these had before their fusion: a section reads
 * its own rows so, and a response that is fused as it comes reads all of them so.
 */
export class Lineage {
  /** By row: the first fused row before it that it read unfused, −1 where it read none so. Those behind that one were read so too. */
  readonly #unfused: number[] = [];
  /** By link and row: the sharer's row that was fused into it, −1 for none. */
  readonly #sources: readonly number[][];
  #first = -1;

  constructor(links: number) {
    this.#sources = Array.from({ length: links }, () => []);
  }

  /** Of a whole prompt. `responding`: the links whose span includes the response; the last section is then fused as it comes. */
  static of(plan: Plan, responding: readonly number[]): Lineage {
    const lineage = new Lineage(plan.sharers.length);
    for (const [index, { start, end, links }] of plan.sections.entries()) {
      const asItComes = index === plan.sections.length - 1;
      const sources = plan.sharers.map(() => new Map<number, number>());
      for (const link of asItComes ? responding : links) {
        for (const { receiver, sharer } of rowsWithin(plan.sharers[link]?.rows ?? [], start, end)) {
          for (let i = 0; receiver.start + i < receiver.end; i += 1) {
            sources[link]?.set(receiver.start + i, sharer.start + i);
          }
        }
      }
      let own = -1;
      for (let row = start; row < end; row += 1) {
        const from = sources.map((rows) => rows.get(row) ?? -1);
        if (asItComes && responding.length > 0) {
          lineage.pushResponse(from);
        } else {
          lineage.#push(own, from);
        }
        own = own < 0 && lineage.fused(row) ? row : own;
      }
    }
    return lineage;
  }

  get length(): number {
    return this.#unfused.length;
  }

  /** The first fused row, −1 when there is none. */
  get first(): number {
    return this.#first;
  }

  /** Adds a row that read everything fused, and into which nothing was fused. */
  pushUnfused(): void {
    this.#push(
      -1,
      this.#sources.map(() => -1),
    );
  }

  /** Adds a row that read everything unfused. `from`: by link, the sharer's row that was fused into it, −1 for none. */
  pushResponse(from: readonly number[]): void {
    this.#push(this.#first, from);
  }

  /** Whether anything was fused into a row. */
  fused(row: number): boolean {
    return this.#sources.some((rows) => (rows[row] ?? -1) >= 0);
  }

  /** How many of the rows [start, end) a link was fused into. */
  count(link: number, start: number, end: number): number {
    return (this.#sources[link]?.slice(start, end) ?? []).filter((row) => row >= 0).length;
  }

  /** A copy that goes its own way. */
  copy(): Lineage {
    const other = new Lineage(this.#sources.length);
    for (const [row, unfused] of this.#unfused.entries()) {
      other.#push(
        unfused,
        this.#sources.map((rows) => rows[row] ?? -1),
      );
    }
    return other;
  }

  /** How many rows are the same as another's from the first on. `sharers`: by link, how many rows of its sharer are the same. */
  agreement(other: Lineage, sharers: readonly number[]): number {
    const most = Math.min(this.length, other.length);
    for (let row = 0; row < most; row += 1) {
      const same = this.#sources.every((rows, link) => {
        const from = rows[row] ?? -1;
        return from === (other.#sources[link]?.[row] ?? -1) && from < (sharers[link] ?? 0);
      });
      if (!same || this.#unfused[row] !== other.#unfused[row]) {
        return row;
      }
    }
    return most;
  }

  #push(unfused: number, from: readonly number[]): void {
    const row = this.#unfused.length;
    this.#unfused.push(unfused);
    for (const [link, rows] of this.#sources.entries()) {
      rows.push(from[link] ?? -1);
    }
    if (this.#first < 0 && this.fused(row)) {
      this.#first = row;
    }
  }
}

/** A fused cache's rows and what they were made of. */
export interface Made {
  readonly receiver: Reading;
  readonly sharers: readonly Reading[];
  readonly lineage: Lineage;
}

/** How many rows of two fused caches with the same fusers are the same, from the first on. */
export function sameRows(a: Made, b: Made): number {
  const sharers = a.sharers.map((reading, link) => {
    const other = b.sharers[link];
    return other === undefined ? 0 : commonRows(reading, other);
  });
  return Math.min(commonRows(a.receiver, b.receiver), a.lineage.agreement(b.lineage, sharers));
}

/**
 * The most of the first `same` rows that a prompt can go on from. The last section is read anew, for its logits. Inside another section
 * the rows to come read the earlier ones unfused: after its first fused row one can go on only where those are at hand, as they are
 * in the first fused section for whoever has the clean rows (`clean`).
 */
export function resumable(plan: Plan, lineage: Lineage, same: number, clean: boolean): number {
  const most = Math.min(same, plan.sections.at(-1)?.start ?? 0);
  const section = plan.sections.find(({ start, end }) => start <= most && most < end);
  for (let row = section?.start ?? most; row < most; row += 1) {
    if (lineage.fused(row)) {
      return clean && row === lineage.first ? most : row;
    }
  }
  return most;
}
