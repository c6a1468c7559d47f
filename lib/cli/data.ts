import { readRows } from "../data/rows.js";
import { type ChatSample, type DataFormat, readSamples } from "../data/samples.js";
import { isHeldOut, shuffled } from "../data/shuffle.js";
import { invalid } from "../options.js";

/** Where training data comes from. `validation`: the share that is held out, of which `most` are kept. */
export interface DataOptions {
  readonly files: readonly string[];
  readonly format?: DataFormat;
  readonly seed: bigint;
  readonly shuffle: boolean;
  readonly window: number;
  readonly validation: number;
}

/** Training data that was read once: counted, checked, and split. */
export interface TrainingData extends AsyncIterable<ChatSample> {
  /** Items of one pass. */
  readonly count: number;
  readonly validation: readonly ChatSample[];
  /** Rows without a reply, left out. */
  readonly skipped: number;
}

/** Validation items beyond this number would cost more time than they add. */
const MOST_VALIDATION = 200;

/**
 * Reads all files once, so that a wrong row is found before training begins. Each iteration is one pass in another order that depends
 * on the seed and the number of the pass alone. OPTION_INVALID for files without any item; FILE_INVALID and IO_FAILED of the files.
 */
export async function openData(options: DataOptions): Promise<TrainingData> {
  const { files, format, seed, validation: share } = options;
  const left = new Map<string, number>();
  async function* read(): AsyncGenerator<ChatSample, void> {
    for (const file of files) {
      const place = { file, ...(format ? { format } : {}), skipped: (count: number) => left.set(file, count) };
      yield* readSamples(readRows(file), place);
    }
  }
  const validation: ChatSample[] = [];
  const held = new Set<number>();
  let total = 0;
  for await (const item of read()) {
    if (validation.length < MOST_VALIDATION && isHeldOut(total, share, seed)) {
      validation.push(item);
      held.add(total);
    }
    total += 1;
  }
  const count = total - validation.length;
  if (count === 0) throw invalid("data", `${files.join(", ")}: no conversation with a reply`);
  async function* train(): AsyncGenerator<ChatSample, void> {
    let at = 0;
    for await (const item of read()) if (!held.has(at++)) yield item;
  }
  let pass = 0n;
  return {
    count,
    validation,
    skipped: [...left.values()].reduce((sum, value) => sum + value, 0),
    [Symbol.asyncIterator]: () => {
      const order = { seed: seed + pass++, window: options.window };
      return options.shuffle ? shuffled(train(), order) : train();
    },
  };
}
