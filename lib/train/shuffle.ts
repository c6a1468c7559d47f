import { type Data, Stream } from "./stream.js";

/** Samples that a shuffled stream of unknown length looks ahead. */
const WINDOW = 1024;

/** A small random stream (SplitMix32): numbers in [0, 1). */
export function randomNumbers(seed: bigint): () => number {
  let state = Number(BigInt.asUintN(32, seed ^ (seed >> 32n)));
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let x = state;
    x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    return ((x ^ (x >>> 15)) >>> 0) / 2 ** 32;
  };
}

/**
 * The data's items in training order. "off": as they come. "all": an array, in a new order each time it is gone through. "window": an
 * item drawn from the next 1,024. The order is a function of the seed alone.
 */
export class Order<T> {
  readonly #next: () => Promise<T>;
  readonly #close: () => Promise<void>;

  constructor(data: Data<T>, shuffle: "off" | "all" | "window", seed: bigint) {
    const source = shuffle === "all" && Array.isArray(data) ? permutations(data, seed) : data;
    const stream = new Stream(source);
    this.#close = () => stream.close();
    this.#next = shuffle === "window" ? windowed(stream, seed) : () => stream.next();
  }

  next(): Promise<T> {
    return this.#next();
  }

  /** Tells the data that no more is wanted. */
  close(): Promise<void> {
    return this.#close();
  }
}

function* permutations<T>(items: readonly T[], seed: bigint): Generator<T> {
  for (let pass = 0n; items.length > 0; pass++) {
    const random = randomNumbers(seed * 1_000_003n + pass);
    const order = items.map((_, i) => i);
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [order[i], order[j]] = [order[j] ?? 0, order[i] ?? 0];
    }
    for (const i of order) yield items[i] as T;
  }
}

function windowed<T>(stream: Stream<T>, seed: bigint): () => Promise<T> {
  const random = randomNumbers(seed);
  const window: T[] = [];
  return async () => {
    while (window.length < WINDOW && stream.passes === 0) window.push(await stream.next());
    const at = Math.floor(random() * window.length);
    const [item] = window.splice(at, 1, await stream.next());
    return item as T;
  };
}
