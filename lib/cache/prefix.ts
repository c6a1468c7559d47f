import type { PrefixReason } from "../types.js";

/** Tokens and their positions, one each. */
export interface Reading {
  readonly ids: Uint32Array;
  readonly positions: Uint32Array;
}

/** How many rows two readings have in common from the first on: tokens and positions both equal. */
export function commonRows(a: Reading, b: Reading): number {
  const most = Math.min(a.ids.length, b.ids.length);
  let rows = 0;
  while (rows < most && a.ids[rows] === b.ids[rows] && a.positions[rows] === b.positions[rows]) {
    rows += 1;
  }
  return rows;
}

/** Why `asked` has only its first `at` rows in common with `kept`. */
export function whyEnded(asked: Reading, kept: Reading, at: number): PrefixReason {
  const [token, position] = [asked.ids[at], asked.positions[at]];
  if (token === undefined || position === undefined) {
    return { kind: "whole" };
  }
  const [otherToken, otherPosition] = [kept.ids[at], kept.positions[at]];
  if (otherToken === undefined || otherPosition === undefined) {
    return { kind: "ended", at };
  }
  return token === otherToken
    ? { kind: "position differs", at, asked: position, kept: otherPosition }
    : { kind: "token differs", at, asked: token, kept: otherToken };
}
