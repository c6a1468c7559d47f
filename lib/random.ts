const mask = (1n << 64n) - 1n;

/** One step of SplitMix64 (Steele, Lea and Flood, 2014): a well-mixed 64-bit value for any state. */
function splitMix(state: bigint): bigint {
  let z = (state + 0x9e3779b97f4a7c15n) & mask;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
  return z ^ (z >> 31n);
}

/** Numbers that look random and depend on the seed alone: xoshiro128** (Blackman and Vigna, 2018), seeded by SplitMix64. */
export class Random {
  readonly #state = new Uint32Array(4);

  /** Streams of the same seed with different names are independent of each other. */
  constructor(seed: bigint, stream = "") {
    let at = seed & mask;
    for (const byte of new TextEncoder().encode(stream)) at = splitMix(at ^ BigInt(byte));
    for (let i = 0; i < 4; i += 2) {
      at = splitMix(at);
      this.#state[i] = Number(at & 0xffffffffn);
      this.#state[i + 1] = Number(at >> 32n);
    }
  }

  /** An integer from 0 to 2³² − 1. */
  bits(): number {
    const s = this.#state;
    const [a = 0, b = 0, c = 0, d = 0] = s;
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    s[2] = c ^ a;
    s[3] = d ^ b;
    s[1] = b ^ (s[2] ?? 0);
    s[0] = a ^ (s[3] ?? 0);
    s[2] = (s[2] ?? 0) ^ (b << 9);
    s[3] = rotate(s[3] ?? 0, 11);
    return result;
  }

  /** A number in [0, 1). */
  next(): number {
    return (this.bits() * 2 ** 21 + (this.bits() >>> 11)) / 2 ** 53;
  }

  /** An integer in [0, count), without bias worth measuring for counts far below 2⁵³. */
  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  /** One of the list; the list must not be empty. */
  pick<T>(list: readonly T[]): T {
    const found = list[this.below(list.length)];
    if (found === undefined) throw new RangeError("nothing to pick from");
    return found;
  }

  /** A shuffled copy (Fisher and Yates). */
  shuffled<T>(list: Iterable<T>): T[] {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const [a, b] = [copy[i], copy[j]];
      copy[i] = b as T;
      copy[j] = a as T;
    }
    return copy;
  }

  /** Normally distributed, by Box and Muller's transform (1958) of two uniform numbers. */
  normal(mean = 0, deviation = 1): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.next()));
    return mean + deviation * radius * Math.cos(2 * Math.PI * this.next());
  }

  /** True with this probability. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }
}

function rotate(value: number, by: number): number {
  return ((value << by) | (value >>> (32 - by))) >>> 0;
}
