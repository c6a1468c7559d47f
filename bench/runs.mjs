// Times of work that is repeated.
import { median } from "./median.mjs";

/**
 * For each of `works` { ms, runs }: the median of `count` runs, of which every one returns its milliseconds, and each with the read
 * bandwidth before and after it. They run in turns, so that a machine which changes meanwhile changes for all of them.
 */
export async function inTurns(bandwidth, count, works) {
  const all = works.map(() => []);
  let before = await bandwidth();
  for (let i = 0; i < count; i++)
    for (const [which, work] of works.entries()) {
      const ms = await work();
      const after = await bandwidth();
      all[which].push({ ms, reads: [before, after] });
      before = after;
    }
  return all.map((runs) => ({ ms: median(runs.map((run) => run.ms)), runs }));
}

/** The same for one, after a run that warms up and decides how many follow: short work is repeated more often. */
export async function warmed(bandwidth, work) {
  const first = await work();
  return (await inTurns(bandwidth, first > 1000 ? 2 : first > 200 ? 4 : 9, [work]))[0];
}

/** Runs before and after which the bandwidth was the same, [{ ms, readGBs }]: where it changed, nobody knows what a run had. */
export const steady = (runs) =>
  runs
    .filter(({ reads: [before, after] }) => Math.abs(before / after - 1) < 0.15)
    .map(({ ms, reads: [before, after] }) => ({ ms, readGBs: (before + after) / 2 }));
