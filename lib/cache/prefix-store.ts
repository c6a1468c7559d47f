import type { NativeCache } from "../../typings/native.js";
import { Life } from "../handles.js";
import { checkPositions } from "../model/forward.js";
import { modelState } from "../model/state.js";
import { checkTokens } from "../model/tokens.js";
import { sync } from "../native.js";
import { integer, invalid } from "../options.js";
import type {
  KvCache,
  Model,
  PrefixEntry,
  PrefixMatch,
  PrefixReason,
  PrefixStore,
  PrefixStoreOptions,
  Tokens,
} from "../types.js";
import { type CacheState, cacheState, makeCache } from "./cache.js";
import type { History } from "./history.js";
import { commonRows, type Reading, whyEnded } from "./prefix.js";
import { type Kept, Shelf } from "./shelf.js";

const MEBIBYTE = 2 ** 20;
/** Bytes of a store that is not told. */
const defaultBytes = 512 * MEBIBYTE;

/** An entry. `plain`: its tokens alone explain its rows, as whoever put it in (`by`) vouches; else others were fused into it. */
export interface Entry extends Kept {
  readonly plain: boolean;
  readonly by: "caller" | "channel";
  /** What was fused into it. */
  readonly history: History;
}

/** What sibling modules see of a store. */
export class StoreState {
  readonly life: Life;
  readonly shelf: Shelf<Entry>;

  constructor(bytes: number) {
    const shelf = new Shelf<Entry>(bytes);
    this.shelf = shelf;
    this.life = new Life("store", () => shelf.clear());
  }

  /** Keeps a plain cache's rows in a fork of it, `native`, which the store owns from here on. */
  keep({ model, life, history }: CacheState, native: NativeCache, by: Entry["by"]): boolean {
    this.shelf.trimAfter(life);
    const ids = sync(() => native.tokens());
    const entry: Entry = {
      model,
      native,
      ids,
      positions: sync(() => native.positions()),
      lives: [modelState(model).life],
      plain: true,
      by,
      history: history.copy(),
    };
    const alike = this.#plain(model, by === "channel");
    const covering = alike.find((one) => commonRows(one, entry) === ids.length);
    if (covering !== undefined) {
      sync(() => native.dispose());
      this.shelf.touch(covering);
      this.shelf.trim();
      return this.shelf.kept.includes(covering);
    }
    this.shelf.drop((one) => !(alike.includes(one) && one.by === by && commonRows(one, entry) === one.ids.length));
    return this.shelf.add(entry);
  }

  /** The plain entry with the most rows in common with `asked`. `trusted`: only of those that channels kept. */
  best(model: Model, asked: Reading, trusted: boolean): { readonly entry: Entry | null; readonly rows: number } {
    let entry: Entry | null = null;
    let rows = -1;
    for (const one of this.#plain(model, trusted)) {
      const common = commonRows(asked, one);
      if (common > rows) {
        entry = one;
        rows = common;
      }
    }
    return { entry, rows: Math.max(0, rows) };
  }

  #plain(model: Model, trusted: boolean): Entry[] {
    return this.shelf.kept.filter((one) => one.model === model && one.plain && (!trusted || one.by === "channel"));
  }
}

const states = new WeakMap<PrefixStore, StoreState>();

/** The state behind a store of this package; OPTION_INVALID for anything else. */
export function storeState(store: PrefixStore, option = "prefixes"): StoreState {
  const state = states.get(store);
  if (state === undefined) {
    throw invalid(option, "is not a store made by this package");
  }
  return state;
}

class Store implements PrefixStore {
  readonly #state: StoreState;

  constructor(state: StoreState) {
    this.#state = state;
  }

  get limit(): number {
    return this.#state.shelf.budget;
  }
  get bytes(): number {
    this.#state.life.check();
    return this.#state.shelf.bytes;
  }
  get entries(): readonly PrefixEntry[] {
    this.#state.life.check();
    return this.#state.shelf.kept.map(({ model, ids, native, plain }) => {
      return { model, length: ids.length, bytes: sync(() => native.bytes), fused: !plain };
    });
  }
  get disposed(): boolean {
    return this.#state.life.disposed;
  }

  put(cache: KvCache): boolean {
    this.#state.life.check();
    const state = cacheState(cache);
    state.free("put");
    const { model, native } = state;
    modelState(model).life.check();
    if (native.most !== null) {
      throw invalid("cache", "has a policy: its rows may have read what has left");
    }
    const { length } = native;
    if (length === 0) {
      return false;
    }
    // Whatever room the cache has, what goes on from its rows may grow.
    const grown = sync(() => modelState(model).native.cache(1, true, null));
    sync(() => grown.append(native, 0, length, false));
    return this.#state.keep(state, grown, "caller");
  }

  find(model: Model, tokens: Tokens, positions?: Uint32Array): PrefixMatch {
    this.#state.life.check();
    const { tokenizer, life } = modelState(model);
    life.check();
    const ids = checkTokens(tokens, tokenizer.vocabulary, model.shape.vocab);
    if (ids.length === 0) {
      throw invalid("tokens", "must hold one token or more");
    }
    const asked = { ids, positions: checkPositions(model, ids.length, -1, positions) };
    const { shelf } = this.#state;
    const { entry, rows } = this.#state.best(model, asked, false);
    const gone = shelf.evicted(model, asked);
    const reason: PrefixReason = gone > rows ? { kind: "evicted", rows: gone } : this.#why(asked, entry, rows);
    if (entry === null || rows === 0) {
      return { cache: null, reused: 0, reason };
    }
    shelf.touch(entry);
    const native = sync(() => entry.native.slice(0, rows));
    return {
      cache: makeCache(model, native, { reused: rows, history: entry.history.slice(0, rows) }),
      reused: rows,
      reason,
    };
  }

  clear(): void {
    this.#state.life.check();
    this.#state.shelf.clear();
  }

  dispose(): void {
    void this.#state.life.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #why(asked: Reading, entry: Entry | null, rows: number): PrefixReason {
    if (entry !== null) {
      return whyEnded(asked, entry, rows);
    }
    const models = new Set(this.#state.shelf.kept.map(({ model }) => model.id));
    return models.size === 0 ? { kind: "empty" } : { kind: "other model", models: [...models] };
  }
}

/** A store of prefixes with a budget of bytes. OPTION_INVALID. */
export function createPrefixStore(options: PrefixStoreOptions = {}): PrefixStore {
  const state = new StoreState(integer("bytes", options.bytes ?? defaultBytes, 0));
  const store = new Store(state);
  states.set(store, state);
  return store;
}
