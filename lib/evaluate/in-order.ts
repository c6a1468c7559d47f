import { setMaxListeners } from "node:events";

/**
 * Works on up to `batch` items at once and yields the results in the items' order. A failure, an abort or a consumer that stops
 * aborts what is still in work and waits for its end.
 */
export async function* inOrder<T, R>(
  items: Iterable<T> | AsyncIterable<T>,
  batch: number,
  work: (item: T, signal: AbortSignal) => Promise<R>,
  signal?: AbortSignal,
): AsyncGenerator<R, void> {
  signal?.throwIfAborted();
  const abort = new AbortController();
  // Every item in work listens, and so does what it calls.
  setMaxListeners(0, abort.signal);
  const forward = (): void => abort.abort(signal?.reason);
  signal?.addEventListener("abort", forward, { once: true });
  const queue: { readonly result: Promise<R>; done: boolean }[] = [];
  const running = new Set<Promise<void>>();
  try {
    for await (const item of items) {
      signal?.throwIfAborted();
      const entry = { result: work(item, abort.signal), done: false };
      const end = (): void => {
        entry.done = true;
        running.delete(settled);
      };
      const settled: Promise<void> = entry.result.then(end, end);
      running.add(settled);
      queue.push(entry);
      if (running.size >= batch) await Promise.race(running);
      while (queue[0]?.done) {
        const first = queue.shift();
        if (first) yield await first.result;
      }
    }
    for (const { result } of queue) yield await result;
  } finally {
    signal?.removeEventListener("abort", forward);
    abort.abort();
    await Promise.all(running);
  }
}
