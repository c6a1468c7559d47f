import { invalid } from "../options.js";

/** Data that can be gone through: an array, a generator, a stream. */
export type Data<T> = Iterable<T> | AsyncIterable<T>;

/**
 * Pulls items one by one, only when asked, and begins again at the data's end. What cannot begin again (a generator that is used up)
 * is OPTION_INVALID once it has ended; so is data without items.
 */
export class Stream<T> {
  readonly #data: Data<T>;
  readonly #option: string;
  #iterator: Iterator<T> | AsyncIterator<T> | null = null;
  #given = 0;
  #closed = false;
  /** How many times the data has come to its end. */
  passes = 0;

  constructor(data: Data<T>, option = "data") {
    this.#data = data;
    this.#option = option;
    if (typeof data !== "object" || data === null || !(Symbol.iterator in data || Symbol.asyncIterator in data)) {
      throw invalid(option, "must be an Iterable or an AsyncIterable");
    }
  }

  /** The next item. */
  async next(): Promise<T> {
    for (;;) {
      if (this.#closed) throw new Error("the data was closed");
      this.#iterator ??= begin(this.#data);
      const result = await this.#iterator.next();
      if (!result.done) {
        this.#given += 1;
        return result.value;
      }
      if (this.#given === 0) {
        const why = this.passes === 0 ? "holds nothing" : "ended before the last step and cannot begin again";
        throw invalid(this.#option, why);
      }
      this.passes += 1;
      this.#given = 0;
      this.#iterator = null;
    }
  }

  /** Tells the data that no more is wanted. */
  async close(): Promise<void> {
    this.#closed = true;
    const iterator = this.#iterator;
    this.#iterator = null;
    await iterator?.return?.();
  }
}

function begin<T>(data: Data<T>): Iterator<T> | AsyncIterator<T> {
  return Symbol.asyncIterator in data ? data[Symbol.asyncIterator]() : data[Symbol.iterator]();
}
