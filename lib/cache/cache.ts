import type { NativeCache } from "../../typings/native.js";
import { C2CError } from "../errors.js";
import { Life, unwatch, watch } from "../handles.js";
import { modelState } from "../model/state.js";
import { tag } from "../model/tokens.js";
import { sync } from "../native.js";
import { choice, integer, invalid } from "../options.js";
import type {
  CachePolicy,
  CacheShape,
  KvCache,
  Model,
  QuantizedCache,
  QuantizedForm,
  QuantizeOptions,
  SaveOptions,
  SaveReport,
  Tokens,
} from "../types.js";
import { History } from "./history.js";
import { quantizeCache } from "./quantize.js";
import { saveCache } from "./save.js";

/** What is known of a cache beside its rows. */
export interface CacheOrigin {
  /** Leading rows that came from another cache. */
  readonly reused?: number;
  /** What was fused into it. */
  readonly history?: History;
  /** Of a cache that does not grow; null: it grows. */
  readonly capacity?: number | null;
  readonly policy?: CachePolicy | null;
}

/** What sibling modules see of a cache. One writer at a time; readers and a writer exclude each other. */
export class CacheState {
  readonly native: NativeCache;
  readonly life: Life;
  readonly model: Model;
  readonly reused: number;
  readonly history: History;
  readonly capacity: number | null;
  readonly policy: CachePolicy | null;
  #writer = false;
  #readers = 0;

  constructor(model: Model, native: NativeCache, origin: CacheOrigin) {
    this.model = model;
    this.native = native;
    this.reused = origin.reused ?? 0;
    this.capacity = origin.capacity ?? null;
    this.policy = origin.policy ?? null;
    this.history = origin.history ?? new History(this.policy !== null);
    this.life = new Life("cache", () => native.dispose());
  }

  /** Claims the cache for writing until the returned function is called; CACHE_BUSY, DISPOSED. */
  claim(operation: string): () => void {
    this.free(operation);
    if (this.#readers > 0) {
      throw busy(operation);
    }
    this.#writer = true;
    return once(() => {
      this.#writer = false;
    });
  }

  /** Claims the cache for reading: other readers may join, writers may not. */
  share(operation: string): () => void {
    this.free(operation);
    this.#readers += 1;
    return once(() => {
      this.#readers -= 1;
    });
  }

  /** CACHE_BUSY while another operation writes, DISPOSED after the end. */
  free(operation: string): void {
    this.life.check();
    if (this.#writer) {
      throw busy(operation);
    }
  }

  /** What a cache of the same rows is. */
  origin(reused = 0): CacheOrigin {
    return { reused, history: this.history.copy(), capacity: this.capacity, policy: this.policy };
  }

  /** Position of the last row, −1 when empty. */
  last(): number {
    const { length } = this.native;
    return length === 0 ? -1 : (this.native.positions()[length - 1] ?? -1);
  }
}

function busy(operation: string): C2CError<"CACHE_BUSY"> {
  return new C2CError("CACHE_BUSY", { operation }, `${operation}: this cache is in use by another operation`);
}

function once(f: () => void): () => void {
  let done = false;
  return () => {
    if (!done) {
      done = true;
      f();
    }
  };
}

const states = new WeakMap<KvCache, CacheState>();

/** The state behind a cache of this package; OPTION_INVALID for anything else. */
export function cacheState(cache: KvCache, option = "cache"): CacheState {
  const state = states.get(cache);
  if (state === undefined) {
    throw invalid(option, "is not a cache made by this package");
  }
  return state;
}

/** A receiver's or sharer's KV cache: one row per token, each with its keys and values in every layer. */
class Cache implements KvCache {
  readonly #state: CacheState;

  constructor(state: CacheState) {
    this.#state = state;
  }

  get model(): Model {
    return this.#state.model;
  }
  get shape(): CacheShape {
    const { layers, kvHeads, headDim } = this.#state.model.shape;
    return { layers, kvHeads, headDim };
  }
  get tokens(): Tokens {
    this.#state.life.check();
    return tag(
      sync(() => this.#state.native.tokens()),
      modelState(this.#state.model).tokenizer.vocabulary,
    );
  }
  get positions(): Uint32Array {
    this.#state.life.check();
    return sync(() => this.#state.native.positions());
  }
  get length(): number {
    this.#state.life.check();
    return sync(() => this.#state.native.length);
  }
  get capacity(): number {
    this.#state.life.check();
    return sync(() => this.#state.native.capacity);
  }
  get bytes(): number {
    this.#state.life.check();
    return sync(() => this.#state.native.bytes);
  }
  get disposed(): boolean {
    return this.#state.life.disposed;
  }
  get reused(): number {
    return this.#state.reused;
  }

  fork(): KvCache {
    this.#state.free("fork");
    modelState(this.#state.model).life.check();
    return makeCache(
      this.#state.model,
      sync(() => this.#state.native.fork()),
      this.#state.origin(),
    );
  }

  erase(start: number, end: number): void {
    this.#write("erase", (native) => {
      integer("start", start, 0, native.length);
      integer("end", end, start, native.length);
      native.erase(start, end);
      this.#state.history.erase(start, end);
    });
  }

  shift(by: number): void {
    this.#write("shift", (native) => native.shift(integer("by", by, Number.MIN_SAFE_INTEGER)));
  }

  append(other: KvCache): void {
    const from = cacheState(other, "other");
    from.free("append");
    if (from.model !== this.#state.model) {
      const details = { expected: this.#state.model.id, actual: from.model.id };
      throw new C2CError("CACHE_FOREIGN", details, `other belongs to another model (${from.model.id})`);
    }
    this.#write("append", (native) => {
      const { length } = native;
      native.append(from.native, 0, from.native.length, true);
      this.#state.history.append(from.history, length);
    });
  }

  slice(start: number, end = this.length): KvCache {
    this.#state.free("slice");
    modelState(this.#state.model).life.check();
    const { length } = this.#state.native;
    integer("start", start, 0, length);
    integer("end", end, start, length);
    return makeCache(
      this.#state.model,
      sync(() => this.#state.native.slice(start, end)),
      { ...this.#state.origin(), history: this.#state.history.slice(start, end) },
    );
  }

  truncate(length: number): void {
    this.#write("truncate", (native) => {
      native.truncate(integer("length", length, 0, native.length));
      this.#state.history.truncate(length);
    });
  }

  read(layer: number, part: "key" | "value", range?: { readonly start: number; readonly end: number }): Float32Array {
    this.#state.free("read");
    const { length } = this.#state.native;
    const start = integer("range.start", range?.start ?? 0, 0, length);
    const end = integer("range.end", range?.end ?? length, start, length);
    const index = this.#layer(layer);
    return sync(() => this.#state.native.read(index, partIndex(part), start, end));
  }

  write(layer: number, part: "key" | "value", start: number, data: Float32Array): void {
    this.#write("write", (native) => {
      const { kvHeads, headDim } = this.shape;
      const { length } = native;
      if (!(data instanceof Float32Array) || data.length % (kvHeads * headDim) !== 0) {
        throw invalid("data", `must be a Float32Array of whole rows of ${kvHeads} × ${headDim} values`);
      }
      integer("start", start, 0, length);
      if (start + data.length / (kvHeads * headDim) > length) {
        throw invalid("data", `reaches past the cache's ${length} rows`);
      }
      native.write(this.#layer(layer), partIndex(part), start, data);
    });
  }

  quantize(form: QuantizedForm, options?: QuantizeOptions): Promise<QuantizedCache> {
    return quantizeCache(this.#state, form, options);
  }

  save(path: string, options: SaveOptions = {}): Promise<SaveReport> {
    return saveCache(this.#state, path, options);
  }

  dispose(): void {
    unwatch(this.#state.life);
    void this.#state.life.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #write(operation: string, change: (native: NativeCache) => void): void {
    const release = this.#state.claim(operation);
    try {
      sync(() => change(this.#state.native));
    } finally {
      release();
    }
  }

  #layer(layer: number): number {
    return integer("layer", layer, 0, this.#state.model.shape.layers - 1);
  }
}

function partIndex(part: "key" | "value"): 0 | 1 {
  return choice("part", part, ["key", "value"]) === "key" ? 0 : 1;
}

/** Wraps a native cache of `model`. */
export function makeCache(model: Model, native: NativeCache, origin: CacheOrigin = {}): KvCache {
  const state = new CacheState(model, native, origin);
  const cache = new Cache(state);
  states.set(cache, state);
  watch(cache, state.life);
  return cache;
}
