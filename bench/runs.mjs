// Times of work that is repeated.
import { median } from "./median.mjs";

/** { ms, runs }: the median of `count` runs of `work`, which returns its milliseconds, and each with the bandwidth around it. */
export async function repeat(bandwidth, count, work) {
  const runs = [];
  let before = await bandwidth();
  for (let i = 0; i < count; i++) {
    const ms = await work();
    const after = await bandwidth();
    runs.push({ ms, readGBs: (before + after) / 2 });
    before = after;
  }
  return { ms: median(runs.map((run) => run.ms)), runs };
}

/** The same after a run that warms up and decides how many follow: short work is repeated more often. */
export async function warmed(bandwidth, work) {
  const first = await work();
  return repeat(bandwidth, first > 1000 ? 2 : first > 200 ? 4 : 9, work);
}
