import { untilAborted } from "../abort.js";
import { invalid } from "../options.js";
import type { Sample } from "../types.js";
import { type PreparedSample, prepareSample, type Reader } from "./samples.js";
import type { Order } from "./shuffle.js";

/** So many samples in a row without a response within `maxTokens` mean that there will be none. */
const FRUITLESS = 10_000;

interface Gathered {
  readonly samples: readonly PreparedSample[];
  readonly pulled: number;
  readonly skipped: number;
}

/** Samples read and put together, one micro-batch ahead of the one that is computed. */
export class MicroBatches {
  readonly #order: Order<Sample>;
  readonly #reader: Reader;
  readonly #size: number;
  readonly #signal: AbortSignal | undefined;
  #ahead: Promise<Gathered> | null = null;
  /** Samples taken from the data for what `next` gave. */
  pulled = 0;
  /** How many of them had no response left within `maxTokens`. */
  skipped = 0;

  constructor(order: Order<Sample>, reader: Reader, size: number, signal: AbortSignal | undefined) {
    this.#order = order;
    this.#reader = reader;
    this.#size = size;
    this.#signal = signal;
  }

  /** Passes over the samples that an earlier part of the run has taken. */
  async skip(pulled: number, skipped: number): Promise<void> {
    for (; this.pulled < pulled; this.pulled++) await untilAborted(this.#order.next(), this.#signal);
    this.skipped = skipped;
  }

  /** The next micro-batch; with `more` the one after it is begun. An abort rejects with `signal.reason`, whatever the data does. */
  async next(more: boolean): Promise<readonly PreparedSample[]> {
    const { samples, pulled, skipped } = await untilAborted(this.#ahead ?? this.#gather(), this.#signal);
    this.pulled = pulled;
    this.skipped = skipped;
    this.#ahead = more ? this.#gather() : null;
    // Its failure is met when its turn comes.
    this.#ahead?.catch(() => undefined);
    return samples;
  }

  /** Tells the data that no more is wanted. Data that hangs does not keep an aborted run from ending. */
  async close(): Promise<void> {
    const closing = this.#order.close();
    if (this.#signal?.aborted) closing.catch(() => undefined);
    else await closing;
  }

  async #gather(): Promise<Gathered> {
    let { pulled, skipped } = this;
    let fruitless = 0;
    const samples: PreparedSample[] = [];
    while (samples.length < this.#size) {
      const wanted: Sample[] = [];
      while (wanted.length < this.#size - samples.length) wanted.push(await this.#order.next());
      pulled += wanted.length;
      for (const sample of await Promise.all(wanted.map((one) => prepareSample(one, this.#reader)))) {
        if (sample) samples.push(sample);
        else skipped += 1;
      }
      fruitless = samples.length > 0 ? 0 : fruitless + wanted.length;
      if (fruitless >= FRUITLESS) throw invalid("maxTokens", "cuts the response off every sample");
    }
    return { samples, pulled, skipped };
  }
}
