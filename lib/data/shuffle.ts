import { integer, invalid } from "../options.js";
import { Random } from "../random.js";

/**
 * Yields the items in an order that depends on the seed, holding `window` of them at a time: each next one is drawn from the window,
 * whose place the next input takes. An item moves forward by less than `window` places; with a window as large as the input it is a
 * plain shuffle. OPTION_INVALID.
 */
export async function* shuffled<T>(
  items: Iterable<T> | AsyncIterable<T>,
  { seed, window = 10_000 }: { readonly seed: bigint; readonly window?: number },
): AsyncGenerator<T, void> {
  integer("window", window, 1);
  const random = new Random(seed, "shuffle");
  const held: T[] = [];
  for await (const item of items) {
    if (held.length < window) {
      held.push(item);
      continue;
    }
    const at = random.below(window);
    const drawn = held[at] as T;
    held[at] = item;
    yield drawn;
  }
  yield* random.shuffled(held);
}

/**
 * Is the item at this place of the data one for validation? A share of all places, chosen by the seed; the same place gets the same
 * answer however often and in whatever order it is asked, so that training can be resumed. OPTION_INVALID for a share not in [0, 1).
 */
export function isHeldOut(index: number, share: number, seed: bigint): boolean {
  if (!(share >= 0 && share < 1)) throw invalid("validation", `must be a share from 0 to below 1, is ${share}`);
  return share > 0 && new Random(seed, `validation ${index}`).next() < share;
}

/** Splits data by `isHeldOut`; the training part is streamed each time it is iterated, the validation part is collected up to `most`. */
export async function validationSplit<T>(
  open: () => AsyncIterable<T>,
  { share, seed, most = 200 }: { readonly share: number; readonly seed: bigint; readonly most?: number },
): Promise<{ train(): AsyncGenerator<T, void>; readonly validation: readonly T[] }> {
  const validation: T[] = [];
  const held = new Set<number>();
  let index = 0;
  isHeldOut(0, share, seed);
  if (share > 0) {
    for await (const item of open()) {
      if (isHeldOut(index, share, seed)) {
        validation.push(item);
        held.add(index);
      }
      index += 1;
      if (validation.length >= most) break;
    }
  }
  async function* train(): AsyncGenerator<T, void> {
    let at = 0;
    for await (const item of open()) if (!held.has(at++)) yield item;
  }
  return { train, validation };
}
