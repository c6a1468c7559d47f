import type { NativeCache } from "../../typings/native.js";
import type { Life } from "../handles.js";
import { sync } from "../native.js";
import type { Model } from "../types.js";
import { commonRows, type Reading } from "./prefix.js";

/** Rows that are kept: what they are of, and handles that they are of no use without. */
export interface Kept extends Reading {
  readonly model: Model;
  readonly native: NativeCache;
  readonly lives: readonly Life[];
}

/** Entries that a search for "evicted" still knows the tokens of. */
const mostGone = 32;

/** Kept caches under a budget of bytes, in the order of their use. */
export class Shelf<T extends Kept> {
  readonly budget: number;
  /** The least recently used first. */
  #kept: T[] = [];
  #gone: (Reading & { readonly model: Model })[] = [];
  readonly #watched = new Map<Life, () => void>();

  constructor(budget: number) {
    this.budget = budget;
  }

  /** The most recently used first. */
  get kept(): readonly T[] {
    return this.#kept.toReversed();
  }

  get bytes(): number {
    return this.#kept.reduce((sum, { native }) => sum + sync(() => native.bytes), 0);
  }

  /** Keeps an entry as the most recently used, which it owns from here on; false when the budget does not hold it. */
  add(entry: T): boolean {
    for (const life of entry.lives) {
      this.#watch(life);
    }
    this.#kept.push(entry);
    const { layers, kvHeads, headDim } = entry.model.shape;
    const size = entry.model.dtype === "float32" ? 4 : 2;
    if (entry.ids.length * layers * 2 * kvHeads * headDim * size > this.budget) {
      this.#evict(entry);
      return false;
    }
    this.trim();
    return this.#kept.includes(entry);
  }

  /** Counts an entry as used now. */
  touch(entry: T): void {
    this.#kept = [...this.#kept.filter((one) => one !== entry), entry];
  }

  /** Lets entries go that are not wanted any more. */
  drop(wanted: (entry: T) => boolean): void {
    const [left, gone] = [this.#kept.filter(wanted), this.#kept.filter((entry) => !wanted(entry))];
    this.#kept = left;
    for (const { native } of gone) {
      sync(() => native.dispose());
    }
  }

  /** Lets the least recently used go until the budget is met. */
  trim(): void {
    while (this.bytes > this.budget) {
      const [oldest] = this.#kept;
      if (oldest === undefined) {
        return;
      }
      this.#evict(oldest);
    }
  }

  /** Meets the budget again when a cache outside is disposed of: rows that it shares with entries then count here. */
  trimAfter(life: Life): void {
    const weak = new WeakRef<Shelf<T>>(this);
    life.atEnd(() => weak.deref()?.trim());
  }

  /** Rows of `asked` that an entry had which the budget made leave. */
  evicted(model: Model, asked: Reading): number {
    return this.#gone.reduce(
      (most, gone) => (gone.model === model ? Math.max(most, commonRows(asked, gone)) : most),
      0,
    );
  }

  clear(): void {
    this.drop(() => false);
    this.#gone = [];
    for (const stop of this.#watched.values()) {
      stop();
    }
    this.#watched.clear();
  }

  #evict(entry: T): void {
    this.drop((one) => one !== entry);
    const { model, ids, positions } = entry;
    this.#gone = [...this.#gone, { model, ids, positions }].slice(-mostGone);
  }

  /** What needs a handle leaves with it. The handle does not keep the shelf alive. */
  #watch(life: Life): void {
    if (this.#watched.has(life)) {
      return;
    }
    const weak = new WeakRef<Shelf<T>>(this);
    const forget = () => {
      const self = weak.deref();
      if (self !== undefined) {
        self.#forget(life);
      }
    };
    this.#watched.set(life, life.atEnd(forget));
  }

  #forget(life: Life): void {
    this.#watched.delete(life);
    this.drop(({ lives }) => !lives.includes(life));
    this.#gone = this.#gone.filter(({ model }) => !model.disposed);
  }
}
