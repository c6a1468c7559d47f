// Types of prefix reuse: caches that are kept so that the next prompt reads only what is new.
import type { Model, Tokens } from "../types.js";
import type { KvCache } from "./cache.js";

/** How a store is made. */
export interface PrefixStoreOptions {
  /** Most bytes of all its caches together; default 512 MiB. What does not fit leaves, the least recently used first. */
  readonly bytes?: number;
}

/** Why no row, or no more rows, can be reused; `at` is the row where it ends. */
export type PrefixReason =
  /** Every token that was asked for is there. */
  | { readonly kind: "whole" }
  /** What is kept goes no further. */
  | { readonly kind: "ended"; readonly at: number }
  /** Another token is kept there. */
  | { readonly kind: "token differs"; readonly at: number; readonly asked: number; readonly kept: number }
  /** The token is the same, but stands at another position. */
  | { readonly kind: "position differs"; readonly at: number; readonly asked: number; readonly kept: number }
  /** More rows than were found, `rows`, were there and have left for the budget's sake. */
  | { readonly kind: "evicted"; readonly rows: number }
  /** Only caches of other models (their ids) are kept. */
  | { readonly kind: "other model"; readonly models: readonly string[] }
  /** Nothing is kept. */
  | { readonly kind: "empty" };

/** What a look-up found: a fork for the caller to go on from and to dispose of, holding exactly the `reused` rows; or nothing. */
export type PrefixMatch =
  | { readonly cache: KvCache; readonly reused: number; readonly reason: PrefixReason }
  | { readonly cache: null; readonly reused: 0; readonly reason: PrefixReason };

/** One prefix that is kept. */
export interface PrefixEntry {
  /** Whose keys and values they are. */
  readonly model: Model;
  /** Its rows. */
  readonly length: number;
  /** Bytes of its memory; rows that it shares with another entry count in one of the two. */
  readonly bytes: number;
  /** A channel's: others were fused into it, and only a channel with the same links finds it. */
  readonly fused: boolean;
}

/**
 * Prefixes of recent prompts as forks of their caches, under a budget of bytes; the least recently used goes first, and those of a
 * model that is disposed of go with it. Any use after `dispose` is DISPOSED.
 */
export interface PrefixStore extends Disposable {
  /** The budget in bytes. */
  readonly limit: number;
  /**
   * Bytes of all entries: memory, in which rows that several share count once. Rows that a cache in use outside shares count there;
   * once it is disposed of they count here, and what does not fit leaves.
   */
  readonly bytes: number;
  /** What is kept, the most recently used first. */
  readonly entries: readonly PrefixEntry[];
  /** True after `dispose`. */
  readonly disposed: boolean;
  /**
   * Keeps a fork of a cache: the two go their own ways. An entry that it continues leaves, and where an entry has all its rows
   * already, that one counts as used. False when the budget does not hold it. The rows are kept as they are: put in only what
   * its tokens alone explain, not what was fused, written or erased in. OPTION_INVALID for a cache with a policy, CACHE_BUSY, DISPOSED.
   */
  put(cache: KvCache): boolean;
  /**
   * The longest run of rows that begins `tokens`, at `positions` (default 0, 1, 2, …), of those that were put in or that channels left
   * unfused, and why it ends there. OPTION_INVALID, TOKENS_FOREIGN, DISPOSED.
   */
  find(model: Model, tokens: Tokens, positions?: Uint32Array): PrefixMatch;
  /** Lets everything go. */
  clear(): void;
  /** Lets everything go, for good. A second call does nothing. */
  dispose(): void;
}

/** Rows of a prompt that a channel had from earlier turns. */
export interface ReusedRows {
  /** The receiver's: neither read nor fused again. */
  readonly receiver: number;
  /** Each sharer's, in the order of the links: not read again. */
  readonly sharers: readonly number[];
}
