import type { PairScore } from "./score.js";

/** What a pair must reach to be shipped; shares from 0 to 1. */
export interface Requirement {
  readonly name: string;
  readonly limit: number;
  readonly least: boolean;
  readonly of: (score: PairScore) => number;
}

const atLeast = (name: string, limit: number, of: Requirement["of"]): Requirement => ({ name, limit, least: true, of });
const atMost = (name: string, limit: number, of: Requirement["of"]): Requirement => ({ name, limit, least: false, of });

/** The bar, on people that the fuser never saw. */
export const requirements: readonly Requirement[] = [
  atMost("receiver alone, sharer's people", 0.08, ({ foreign }) => foreign.receiver.value),
  atLeast("sharer alone, sharer's people", 0.98, ({ foreign }) => foreign.sharer.value),
  atLeast("C2C, sharer's people", 0.65, ({ foreign }) => foreign.c2c.value),
  atLeast("C2C, receiver's own people", 0.92, ({ own }) => own.c2c.value),
  atLeast("C2C, even mix", 0.78, ({ mix }) => mix.c2c.value),
  atMost("better of both models alone, even mix", 0.55, ({ mix }) => Math.max(mix.receiver.value, mix.sharer.value)),
  atMost("mismatched sharer cache", 0.09, ({ foreign }) => foreign.mismatched.value),
  atMost("zeroed sharer cache", 0.09, ({ foreign }) => foreign.zeroed.value),
  atMost("noise as sharer cache", 0.09, ({ foreign }) => foreign.noise.value),
  atLeast("another person's cache: that person's answer", 0.55, ({ swapped }) => swapped.followed.value),
  atMost("another person's cache: the question's own answer", 0.09, ({ swapped }) => swapped.kept.value),
];

/** One requirement over several fusers: the mean counts, the extremes are shown. */
export interface BarLine {
  readonly name: string;
  readonly limit: string;
  readonly mean: number;
  readonly low: number;
  readonly high: number;
  readonly met: boolean;
}

/** Holds the scores of one pair with several fuser seeds against the bar. */
export function checkBar(scores: readonly PairScore[]): readonly BarLine[] {
  return requirements.map(({ name, limit, least, of }) => {
    const values = scores.map(of);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const met = least ? mean >= limit : mean <= limit;
    return {
      name,
      limit: `${least ? "≥" : "≤"} ${Math.round(100 * limit)} %`,
      mean,
      low: Math.min(...values),
      high: Math.max(...values),
      met,
    };
  });
}
