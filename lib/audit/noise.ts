import { Random } from "../random.js";

/** A stream of standard normal numbers that a text seeds: the same text, the same numbers. */
export class Normals {
  readonly #random: Random;
  #spare: number | null = null;

  constructor(seed: string) {
    this.#random = new Random(0n, seed);
  }

  /** The next number: Box and Muller's transform of two uniform ones. */
  next(): number {
    if (this.#spare !== null) {
      const spare = this.#spare;
      this.#spare = null;
      return spare;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.#random.next()));
    const angle = 2 * Math.PI * this.#random.next();
    this.#spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

/** Mean and standard deviation (of the population) of some values; 0 and 0 of none. */
export function moments(values: Float32Array): { readonly mean: number; readonly deviation: number } {
  if (values.length === 0) return { mean: 0, deviation: 0 };
  let sum = 0;
  for (const value of values) sum += value;
  const mean = sum / values.length;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  return { mean, deviation: Math.sqrt(squares / values.length) };
}
