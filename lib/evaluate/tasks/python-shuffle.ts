const SIZE = 624;
const MIDDLE = 397;

/**
 * The order in which Python's `random.Random(seed).shuffle` puts 0, 1, … `count` − 1: the Mersenne Twister (Matsumoto and Nishimura,
 * 1998) seeded by an array of one word, and draws below n from its top bits, drawn again when they are too large. `seed`: 32 bits.
 */
export function pythonShuffle(count: number, seed: number): number[] {
  const next = mersenne(seed);
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const bits = 32 - Math.clz32(i + 1);
    let j = next() >>> (32 - bits);
    while (j > i) j = next() >>> (32 - bits);
    [order[i], order[j]] = [order[j] ?? 0, order[i] ?? 0];
  }
  return order;
}

/** 32-bit outputs of the generator. */
function mersenne(seed: number): () => number {
  const state = new Uint32Array(SIZE);
  const at = (i: number): number => state[i % SIZE] ?? 0;
  const mixed = (i: number): number => at(i + SIZE - 1) ^ (at(i + SIZE - 1) >>> 30);
  state[0] = 19650218;
  for (let i = 1; i < SIZE; i++) state[i] = Math.imul(1812433253, mixed(i)) + i;
  // The key is one word; place 0 is skipped and takes the last place's value.
  let place = 1;
  const step = (change: (i: number) => number): void => {
    state[place] = change(place);
    place += 1;
    if (place === SIZE) {
      state[0] = at(SIZE - 1);
      place = 1;
    }
  };
  for (let k = 0; k < SIZE; k++) step((i) => (at(i) ^ Math.imul(mixed(i), 1664525)) + seed);
  for (let k = 1; k < SIZE; k++) step((i) => (at(i) ^ Math.imul(mixed(i), 1566083941)) - i);
  state[0] = 0x80000000;
  let used = SIZE;
  return () => {
    if (used === SIZE) {
      for (let i = 0; i < SIZE; i++) {
        const joined = (at(i) & 0x80000000) | (at(i + 1) & 0x7fffffff);
        state[i] = at(i + MIDDLE) ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
      }
      used = 0;
    }
    let word = at(used);
    used += 1;
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    return (word ^ (word >>> 18)) >>> 0;
  };
}
