import type { NativeCache } from "../../typings/native.js";
import type { CacheState } from "../cache/cache.js";
import type { History } from "../cache/history.js";
import type { Reading } from "../cache/prefix.js";
import type { Entry, StoreState } from "../cache/prefix-store.js";
import type { FuseOrder } from "../fuser/fuse.js";
import { fuserState } from "../fuser/state.js";
import { modelState } from "../model/state.js";
import { sync } from "../native.js";
import type { FuseReport, Fuser, Link, Model } from "../types.js";
import { type Made, resumable, sameRows } from "./lineage.js";
import type { Plan } from "./plan.js";

/** What was fused into the receiver's rows [start, end) by one link. */
export interface FusedPart {
  readonly link: number;
  readonly start: number;
  readonly end: number;
  readonly report: FuseReport;
}

/** A fused cache with all that it depends on. */
interface FusedEntry extends Entry, Made {
  readonly plain: false;
  readonly fusers: readonly Fuser[];
  readonly order: FuseOrder;
  readonly parts: readonly FusedPart[];
  /** Rows that a prompt which continues this one has too; what comes behind them is worth no entry of its own. */
  readonly settled: number;
}

/** Rows to go on from: a fork of what is kept. */
export interface Base {
  readonly native: NativeCache;
  readonly rows: number;
  readonly history: History;
}

/** One channel's view of a store. */
export class Reuse {
  readonly #store: StoreState;
  readonly #receiver: Model;
  readonly #fusers: readonly Fuser[];
  readonly #order: FuseOrder;

  constructor(store: StoreState, receiver: Model, links: readonly Link[], order: FuseOrder) {
    this.#store = store;
    this.#receiver = receiver;
    this.#fusers = links.map(({ fuser }) => fuser);
    this.#order = order;
  }

  /** The first rows of a plain cache, `most` of them at most. */
  plain(model: Model, reading: Reading, most: number): Base | null {
    this.#store.life.check();
    const { entry, rows } = this.#store.best(model, reading, true);
    const wanted = Math.min(rows, most);
    return entry === null || wanted === 0 ? null : this.#fork(entry, wanted);
  }

  /** The first rows of a fused cache that this prompt can go on from. */
  fused(made: Made, plan: Plan, clean: boolean): (Base & { readonly parts: readonly FusedPart[] }) | null {
    this.#store.life.check();
    let best: FusedEntry | null = null;
    let rows = 0;
    for (const entry of this.#own()) {
      const some = resumable(plan, made.lineage, sameRows(entry, made), clean);
      if (some > rows) {
        best = entry;
        rows = some;
      }
    }
    return best === null ? null : { ...this.#fork(best, rows), parts: best.parts };
  }

  /** Keeps the rows that a model has read. */
  keepPlain(cache: CacheState): void {
    const { model, native } = cache;
    if (!this.#store.life.disposed && !model.disposed && native.length > 0) {
      const fork = sync(() => native.fork());
      this.#store.keep(cache, fork, "channel");
    }
  }

  /** Keeps a fused cache's rows, as many as `made` explains. */
  keepFused(cache: CacheState, made: Made, parts: readonly FusedPart[], settled: number): void {
    const { shelf, life } = this.#store;
    const models = [this.#receiver, ...this.#fusers.map(({ pair }) => pair.sharer)];
    const lives = [
      ...models.map((model) => modelState(model).life),
      ...this.#fusers.map((one) => fuserState(one).life),
    ];
    if (life.disposed || lives.some(({ disposed }) => disposed)) {
      return;
    }
    shelf.trimAfter(cache.life);
    const own = this.#own();
    const covering = own.find((entry) => sameRows(entry, made) === made.lineage.length);
    if (covering !== undefined) {
      shelf.touch(covering);
      return;
    }
    const continued = own.filter((entry) => sameRows(entry, made) >= Math.min(entry.settled, entry.lineage.length));
    shelf.drop((entry) => !continued.some((one) => one === entry));
    const entry: FusedEntry = {
      ...made,
      ...made.receiver,
      model: this.#receiver,
      native: sync(() => cache.native.slice(0, made.lineage.length)),
      lives,
      plain: false,
      by: "channel",
      history: cache.history.slice(0, made.lineage.length),
      fusers: this.#fusers,
      order: this.#order,
      parts,
      settled,
    };
    fusedEntries.add(entry);
    shelf.add(entry);
  }

  #fork(entry: Entry, rows: number): Base {
    this.#store.shelf.touch(entry);
    return { native: sync(() => entry.native.slice(0, rows)), rows, history: entry.history.slice(0, rows) };
  }

  /** Fused entries of the same receiver, fusers and order. */
  #own(): FusedEntry[] {
    return this.#store.shelf.kept.filter((entry): entry is FusedEntry => {
      return (
        isFused(entry) &&
        entry.model === this.#receiver &&
        entry.order === this.#order &&
        entry.fusers.length === this.#fusers.length &&
        entry.fusers.every((fuser, i) => fuser === this.#fusers[i])
      );
    });
  }
}

const fusedEntries = new WeakSet<Entry>();

function isFused(entry: Entry): entry is FusedEntry {
  return fusedEntries.has(entry);
}
