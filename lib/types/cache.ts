import type { DType, Fuser, Model, Span, Tokens } from "../types.js";

/** What leaves a cache that is full. */
export type CachePolicy = {
  /**
   * The first `sinks` rows and the most recent ones stay, at their places in the cache: keys are turned there (StreamingLLM,
   * arXiv 2309.17453). Text of any length runs in constant memory and time per token; what left is forgotten.
   */
  readonly kind: "sinks";
  /** First rows that never leave, 0 to capacity − 1; default 4. 0 is a plain sliding window. */
  readonly sinks?: number;
  /**
   * How many rows leave at once at least, 1 to capacity − `sinks`; default a sixteenth of the capacity. 1 keeps as many rows as
   * fit, as StreamingLLM does, and turns all keys for every token; more at once cost less and round keys less often.
   */
  readonly evict?: number;
};

/** How an empty cache is made. */
export interface CacheOptions {
  /** Rows that it has room for at first; default 64. */
  readonly capacity?: number;
  /** Default true: the room doubles when it is used up. With false an append past `capacity` is CACHE_FULL. */
  readonly grow?: boolean;
  /** Makes room in a fixed cache that is full. Needs `capacity`, at most the model's context. */
  readonly policy?: CachePolicy;
}

/** Sizes of a cache's rows: a row has `kvHeads` × `headDim` keys and as many values in each layer, of two or four bytes each. */
export interface CacheShape {
  /** Layers that have keys and values. */
  readonly layers: number;
  /** Key and value heads of a layer. */
  readonly kvHeads: number;
  /** Values of a head. */
  readonly headDim: number;
}

/** Rows in 8 or 4 bits a value. */
export type QuantizedForm = "int8" | "int4";
/** How rows are kept: "plain" in the cache's dtype, or in fewer bits. */
export type CacheForm = "plain" | QuantizedForm;

/** What was fused into a cache: by which fuser, from which sharer. */
export interface FusedRows {
  /** The fuser's kind. */
  readonly kind: Fuser["kind"];
  /** The fuser's fingerprint: "sha256:…" over its projectors and weights. */
  readonly fuser: string;
  /** The sharer: a hub repository or a folder's name, and "sha256:…" over its config and weights. */
  readonly sharer: { readonly name: string; readonly fingerprint: string };
  /** Rows that were written to, ascending; null where a policy has moved rows since. */
  readonly rows: readonly Span[] | null;
}

/** How a cache is quantised. */
export interface QuantizeOptions {
  /** Raised: the promise rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** What quantising came to. */
export interface QuantizeReport {
  /** Bytes that the rows take now. */
  readonly bytes: number;
  /** Bytes that they would take more as plain rows. */
  readonly saved: number;
  /** Of keys that were plain before. */
  readonly keyError: ValueError;
  /** Of values that were plain before. */
  readonly valueError: ValueError;
}

/** A quantised cache, and what it came to. */
export interface QuantizedCache {
  /** A cache of its own. */
  readonly cache: KvCache;
  /** Its bytes and its errors. */
  readonly report: QuantizeReport;
}

/** How a cache is saved. */
export interface SaveOptions {
  /** Writes plain rows in 8 or 4 bits (see `quantize`). Default: all rows as the cache keeps them. */
  readonly quantize?: QuantizedForm;
  /** Raised: nothing is written, and the promise rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** By how much numbers differ from what they were. */
export interface ValueError {
  /** Root of the mean square of differences, divided by that of the values; 0 to 1 for anything useful. */
  readonly relative: number;
  /** The largest difference. */
  readonly largest: number;
}

/** What a save came to. */
export interface SaveReport {
  /** Size of the file. */
  readonly bytes: number;
  /** Bytes that plain rows would take more. */
  readonly saved: number;
  /** Of keys that `quantize` put into fewer bits; 0 without it. */
  readonly keyError: ValueError;
  /** Of values, likewise. */
  readonly valueError: ValueError;
}

/** How a cache is loaded. */
export interface LoadCacheOptions {
  /** Raised: the promise rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** What a cache's file says of itself. */
export interface CacheFile {
  /** Whose keys and values these are: a hub repository or a folder's name, and "sha256:…" over its config and weights. */
  readonly model: { readonly name: string; readonly fingerprint: string };
  /** Of plain rows, and of what others are turned into when they are read. */
  readonly dtype: DType;
  /** Layers, heads and head size. */
  readonly shape: CacheShape;
  /** Rows. */
  readonly length: number;
  /** Runs of rows of one form, in order. */
  readonly parts: readonly { readonly form: CacheForm; readonly rows: number }[];
  /** What was fused into it, oldest first. */
  readonly fused: readonly FusedRows[];
  /** Rows that a cache has room for that does not grow; null: it grows. */
  readonly capacity: number | null;
  /** What makes room when it is full; null: nothing. */
  readonly policy: CachePolicy | null;
  /** Sixteen hexadecimal digits over the whole file. */
  readonly checksum: string;
  /** Size of the file. */
  readonly bytes: number;
}

/**
 * Keys and values of all positions read so far: a value of its own, which outlives no model. One operation at a time (CACHE_BUSY);
 * another model's cache is CACHE_FOREIGN, any use after `dispose` DISPOSED.
 */
export interface KvCache extends Disposable {
  /** The model whose keys and values these are. */
  readonly model: Model;
  /** Its layers, heads and head size. */
  readonly shape: CacheShape;
  /** One token for each row. */
  readonly tokens: Tokens;
  /** The rotary position of each row. */
  readonly positions: Uint32Array;
  /** Rows in use. */
  readonly length: number;
  /** Rows there is room for. */
  readonly capacity: number;
  /** Bytes of its own memory. What several caches share counts in one of them: their sum is the memory that all of them take. */
  readonly bytes: number;
  /** True after `dispose`. */
  readonly disposed: boolean;
  /** How many leading positions were reused when this cache was made with `from`. */
  readonly reused: number;
  /**
   * A cache with the same rows that goes its own way from here. No row is copied: the two share them until one writes over some, and
   * then those are copied, 64 at a time; what either appends is its own.
   */
  fork(): KvCache;
  /** Forgets all rows from `length` on. */
  truncate(length: number): void;
  /**
   * Forgets rows [start, end). Later rows move down by as many positions, and their keys are turned there; what they read from the
   * erased rows stays in them. OPTION_INVALID for a range outside the cache.
   */
  erase(start: number, end: number): void;
  /** Moves all rows by `by` positions (an integer, may be negative). OPTION_INVALID for a position below 0, CACHE_FULL past the context. */
  shift(by: number): void;
  /**
   * Appends another cache of the same model: its rows' keys are turned so that the first stands behind this cache's last. Rows that
   * need no turn are shared. CACHE_FOREIGN, CACHE_FULL.
   */
  append(other: KvCache): void;
  /** A cache of rows [start, end), which it shares, at their positions. Default: to the end. */
  slice(start: number, end?: number): KvCache;
  /** A copy, [positions, kvHeads, headDim], in float32. Keys are rotated (post-RoPE), as models store them. */
  read(layer: number, part: "key" | "value", range?: { readonly start: number; readonly end: number }): Float32Array;
  /** Overwrites rows from `start` on with [rows, kvHeads, headDim] float32 values; keys must be rotated. */
  write(layer: number, part: "key" | "value", start: number, data: Float32Array): void;
  /**
   * A cache of the same rows in 8 or 4 bits a value: for sharers above all, whose rows a fuser then reads in pieces and never whole.
   * Keys have a scale for each channel of 32 rows, values for each 32 channels of a row (KIVI, arXiv 2402.02750), so a value takes 9
   * or 5 bits; none is off by more than half a step of its scale. Rows that are quantised already stay as they are. What is appended
   * to the new cache is plain, as is whatever is written over or moved. It can be used as any other; a model that decodes on it
   * restores its rows for every token. The cache itself stays as it is. OPTION_INVALID for rows with values that are not finite, an
   * abort rejects with `signal.reason`.
   */
  quantize(form: QuantizedForm, options?: QuantizeOptions): Promise<QuantizedCache>;
  /**
   * Writes the cache as it is now into a file, which `loadCache` reads: a safetensors with rows, tokens, positions, the model's
   * fingerprint, what was fused into it, and a checksum; with `quantize` in 8 or 4 bits, which are what is loaded then. It is written under another name, synced and renamed: at any moment there is
   * the old file or the new one. The cache may be used meanwhile. IO_FAILED, with an older file as it was; FILE_INVALID where a
   * model's files have changed since it was loaded; an abort rejects with `signal.reason`.
   */
  save(path: string, options?: SaveOptions): Promise<SaveReport>;
  /** Gives its memory back. A second call does nothing. */
  dispose(): void;
}
