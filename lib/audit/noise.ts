/** A stream of standard normal numbers that a text seeds: the same text, the same numbers, on every machine. */
export class Normals {
  #state: [number, number, number, number];
  #spare: number | null = null;

  constructor(seed: string) {
    this.#state = [fnv(seed, 1), fnv(seed, 2), fnv(seed, 3), 1];
    for (let i = 0; i < 12; i++) this.#uniform();
  }

  /** The next number: Box and Muller's transform of two uniform ones. */
  next(): number {
    if (this.#spare !== null) {
      const spare = this.#spare;
      this.#spare = null;
      return spare;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.#uniform()));
    const angle = 2 * Math.PI * this.#uniform();
    this.#spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /** Uniform in [0, 1): the small fast counting generator sfc32 of C. Doty-Humphrey's PractRand. */
  #uniform(): number {
    const [a, b, c, counter] = this.#state;
    const sum = (a + b + counter) | 0;
    const turned = (c << 21) | (c >>> 11);
    this.#state = [b ^ (b >>> 9), (c + (c << 3)) | 0, (turned + sum) | 0, (counter + 1) | 0];
    return (sum >>> 0) / 2 ** 32;
  }
}

/** The 32-bit FNV-1a hash of a text, begun with a salt. */
function fnv(text: string, salt: number): number {
  let hash = 0x811c9dc5 ^ salt;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash | 0;
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
