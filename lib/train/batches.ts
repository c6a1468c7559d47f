import type { FuserBatch } from "../../typings/native.js";
import type { PreparedSample } from "./samples.js";

/** Lays samples one after another, without padding. */
export function fuserBatch(samples: readonly PreparedSample[]): FuserBatch {
  const receiver = { tokens: [] as number[], positions: [] as number[], lengths: [] as number[] };
  const sharer = { tokens: [] as number[], positions: [] as number[], lengths: [] as number[] };
  const sectionCounts: number[] = [];
  const sectionEnds: number[] = [];
  const fused: number[] = [];
  const targetRows: number[] = [];
  const targetIds: number[] = [];
  for (const [index, sample] of samples.entries()) {
    const rows = sample.receiver.positions.length;
    const first = receiver.tokens.length;
    for (let row = 0; row < rows; row++) {
      receiver.tokens.push(sample.receiver.ids[row] ?? 0);
      receiver.positions.push(sample.receiver.positions[row] ?? 0);
    }
    receiver.lengths.push(rows);
    for (const [row, id] of sample.sharer.ids.entries()) {
      sharer.tokens.push(id);
      sharer.positions.push(sample.sharer.positions[row] ?? 0);
    }
    sharer.lengths.push(sample.sharer.ids.length);
    sectionCounts.push(sample.sections.length);
    sectionEnds.push(...sample.sections);
    for (const run of sample.fused) fused.push(index, run.receiver.start, run.receiver.end, run.sharer.start);
    for (let token = sample.target.start; token < sample.target.end; token++) {
      targetRows.push(first + token - 1);
      targetIds.push(sample.receiver.ids[token] ?? 0);
    }
  }
  const ids = (values: readonly number[]) => Uint32Array.from(values);
  const reading = (side: typeof receiver) => ({
    tokens: ids(side.tokens),
    positions: ids(side.positions),
    lengths: ids(side.lengths),
  });
  return {
    receiver: reading(receiver),
    sharer: reading(sharer),
    sectionCounts: ids(sectionCounts),
    sectionEnds: ids(sectionEnds),
    fused: ids(fused),
    targetRows: ids(targetRows),
    targetIds: ids(targetIds),
  };
}
