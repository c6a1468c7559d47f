/** The statistics of right and wrong answers. Every interval is two-sided at 95 %. */

/** The standard normal distribution's 97.5 % point. */
const Z = 1.959963984540054;

/** Ends of an interval; shares from 0 to 1, or differences of shares from −1 to 1. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

/** How two systems did on the same questions: right by the first alone, by the second alone, and all questions. */
export interface Paired {
  readonly first: number;
  readonly second: number;
  readonly n: number;
}

/**
 * Wilson's score interval of a share, `correct` of `n`; [0, 1] for n = 0. It holds near 0 and 1, where the usual ±1.96 standard
 * errors do not. Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209–212.
 */
export function wilson(correct: number, n: number): Interval {
  if (n === 0) return { low: 0, high: 1 };
  const share = correct / n;
  const middle = share + Z ** 2 / (2 * n);
  const half = Z * Math.sqrt((share * (1 - share)) / n + Z ** 2 / (4 * n ** 2));
  const scale = 1 + Z ** 2 / n;
  // At 0 and at n an end is exactly 0 or 1; rounding would leave it just beside.
  return {
    low: correct === 0 ? 0 : Math.max(0, (middle - half) / scale),
    high: correct === n ? 1 : Math.min(1, (middle + half) / scale),
  };
}

/** Counts pairs of outcomes on the same questions, in order. */
export function pair(first: readonly boolean[], second: readonly boolean[]): Paired {
  const n = Math.min(first.length, second.length);
  let one = 0;
  let other = 0;
  for (let i = 0; i < n; i++) {
    if (first[i] && !second[i]) one += 1;
    if (second[i] && !first[i]) other += 1;
  }
  return { first: one, second: other, n };
}

/**
 * McNemar's exact two-sided p: how likely a split of the questions on which two systems differ is that is at least as uneven, if
 * each were as likely to fall either way. 1 where they never differ. Sources: Q. McNemar, "Note on the sampling error of the
 * difference between correlated proportions", Psychometrika 12 (1947), 153–157; exact by the binomial distribution with share ½.
 */
export function mcnemar({ first, second }: Pick<Paired, "first" | "second">): number {
  const differ = first + second;
  const fewer = Math.min(first, second);
  // Terms C(differ, i) / 2^differ, in logarithms: 2^differ overflows from 1,024 on.
  let logTerm = -differ * Math.LN2;
  let sum = 0;
  for (let i = 0; i <= fewer; i++) {
    sum += Math.exp(logTerm);
    logTerm += Math.log(differ - i) - Math.log(i + 1);
  }
  return Math.min(1, 2 * sum);
}

/**
 * The difference of two shares on the same questions, first minus second, with Tango's score interval: the differences δ that a
 * score test does not refuse. It excludes 0 when McNemar's test without correction has p < 0.05, and never leaves [−1, 1].
 * Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
 * Statistics in Medicine 17 (1998), 891–908.
 */
export function difference(paired: Paired): Interval & { readonly value: number } {
  const { first, second, n } = paired;
  if (n === 0) return { value: 0, low: -1, high: 1 };
  const value = (first - second) / n;
  return {
    value,
    low: bisect((delta) => score(paired, delta) > Z, -1, value),
    high: bisect((delta) => score(paired, delta) > -Z, value, 1),
  };
}

/** Tango's statistic: falls as δ rises, 0 at the observed difference. The second's own share is the likeliest one given δ. */
function score({ first, second, n }: Paired, delta: number): number {
  const b = (2 * n - first + second) * delta - first - second;
  const c = -second * delta * (1 - delta);
  const own = (Math.sqrt(Math.max(0, b ** 2 - 8 * n * c)) - b) / (4 * n);
  const variance = n * (2 * own + delta * (1 - delta));
  const numerator = first - second - n * delta;
  return variance <= 0 ? Math.sign(numerator) * Number.POSITIVE_INFINITY || 0 : numerator / Math.sqrt(variance);
}

/** Where `above` turns from true to false between `from` and `to`. */
function bisect(above: (x: number) => boolean, from: number, to: number): number {
  let low = from;
  let high = to;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (above(middle)) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** The middle value; the mean of the two middle ones where their number is even. NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}
