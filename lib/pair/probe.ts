import type { KvCache, Model } from "../index.js";
import type { PairQuestion } from "./questions.js";

/** Rows of features, each as long as the others. */
export type Features = readonly Float64Array[];

/** Keys and values of these layers at the question's last row, and a constant 1: what a fuser of that row is given. */
export async function questionFeatures(
  model: Model,
  questions: readonly PairQuestion[],
  layers: readonly number[],
): Promise<Features> {
  const rows: Float64Array[] = [];
  for (const { question } of questions) {
    const { tokens, spans } = await model.encode(question);
    const end = spans.at(-1)?.end ?? tokens.length;
    using cache = await model.prefill(model.tokens(tokens.slice(0, end)));
    const parts = layers.flatMap((layer) => [
      readRow(cache, layer, "key", end - 1),
      readRow(cache, layer, "value", end - 1),
    ]);
    rows.push(Float64Array.from([...parts.flatMap((part) => [...part]), 1]));
  }
  return rows;
}

function readRow(cache: KvCache, layer: number, part: "key" | "value", row: number): Float32Array {
  return cache.read(layer, part, { start: row, end: row + 1 });
}

/**
 * Ridge regression: weights [features, targets] that minimise |X W − Y|² + penalty · n · |W|², by Cholesky decomposition of the
 * normal equations. `targets` are rows like `features`.
 */
export function ridge(features: Features, targets: Features, penalty: number): Features {
  const size = features[0]?.length ?? 0;
  const width = targets[0]?.length ?? 0;
  const gram = Array.from({ length: size }, () => new Float64Array(size));
  const right = Array.from({ length: size }, () => new Float64Array(width));
  for (const [n, row] of features.entries()) {
    for (let i = 0; i < size; i++) {
      const x = row[i] ?? 0;
      const [g, r] = [gram[i] as Float64Array, right[i] as Float64Array];
      for (let j = 0; j <= i; j++) g[j] = (g[j] ?? 0) + x * (row[j] ?? 0);
      for (let t = 0; t < width; t++) r[t] = (r[t] ?? 0) + x * (targets[n]?.[t] ?? 0);
    }
  }
  for (let i = 0; i < size; i++) {
    const g = gram[i] as Float64Array;
    g[i] = (g[i] ?? 0) + penalty * features.length;
  }
  solve(gram, right);
  return right;
}

/** Solves A X = B in place of B for a positive definite A of which the lower triangle is given; A becomes its Cholesky factor. */
function solve(a: readonly Float64Array[], b: readonly Float64Array[]): void {
  const size = a.length;
  const at = (i: number, j: number): number => a[i]?.[j] ?? 0;
  for (let i = 0; i < size; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = at(i, j);
      for (let k = 0; k < j; k++) sum -= at(i, k) * at(j, k);
      (a[i] as Float64Array)[j] = i === j ? Math.sqrt(sum) : sum / at(j, j);
    }
  }
  for (let t = 0; t < (b[0]?.length ?? 0); t++) {
    for (let i = 0; i < size; i++) {
      let sum = b[i]?.[t] ?? 0;
      for (let k = 0; k < i; k++) sum -= at(i, k) * (b[k]?.[t] ?? 0);
      (b[i] as Float64Array)[t] = sum / at(i, i);
    }
    for (let i = size - 1; i >= 0; i--) {
      let sum = b[i]?.[t] ?? 0;
      for (let k = i + 1; k < size; k++) sum -= at(k, i) * (b[k]?.[t] ?? 0);
      (b[i] as Float64Array)[t] = sum / at(i, i);
    }
  }
}

/** X W. */
function predict(features: Features, weights: Features): Features {
  const width = weights[0]?.length ?? 0;
  return features.map((row) => {
    const sum = new Float64Array(width);
    for (const [i, x] of row.entries())
      for (let t = 0; t < width; t++) sum[t] = (sum[t] ?? 0) + x * (weights[i]?.[t] ?? 0);
    return sum;
  });
}

/** The penalty of both probes, in units of a feature's square. */
const PENALTY = 1e-3;

/**
 * Share of `held` questions whose answer a linear map reads off the sharer's last layer at the question's last row, having learned
 * from `learn`. Where this is low no fuser can carry the answer over.
 */
export async function answerProbe(
  sharer: Model,
  learn: readonly PairQuestion[],
  held: readonly PairQuestion[],
): Promise<number> {
  const layers = [sharer.shape.layers - 1];
  const words = [...new Set(learn.map(({ answer }) => answer))];
  const targets = learn.map(({ answer }) => Float64Array.from(words, (word) => (word === answer ? 1 : 0)));
  const weights = ridge(await questionFeatures(sharer, learn, layers), targets, PENALTY);
  const scores = predict(await questionFeatures(sharer, held, layers), weights);
  const right = held.filter(({ answer }, i) => {
    const row = scores[i] ?? new Float64Array();
    return words[row.indexOf(Math.max(...row))] === answer;
  });
  return right.length / Math.max(held.length, 1);
}

/** Whether a linear map tells from the receiver's fused layers if it knows the person: the area under the ROC curve on `held`. */
export async function knownProbe(
  receiver: Model,
  layers: readonly number[],
  learn: readonly PairQuestion[],
  held: readonly PairQuestion[],
): Promise<number> {
  const targets = learn.map(({ who }) => Float64Array.of(who === "receiver" ? 1 : -1));
  const weights = ridge(await questionFeatures(receiver, learn, layers), targets, PENALTY);
  const scores = predict(await questionFeatures(receiver, held, layers), weights).map(([score = 0]) => score);
  return areaUnderCurve(
    scores,
    held.map(({ who }) => who === "receiver"),
  );
}

/** The chance that a positive scores higher than a negative; ties count half. NaN where one of them is missing. */
export function areaUnderCurve(scores: readonly number[], positive: readonly boolean[]): number {
  let wins = 0;
  let pairs = 0;
  for (const [i, a] of scores.entries()) {
    if (!positive[i]) continue;
    for (const [j, b] of scores.entries()) {
      if (positive[j]) continue;
      pairs += 1;
      wins += a > b ? 1 : a === b ? 0.5 : 0;
    }
  }
  return wins / pairs;
}
