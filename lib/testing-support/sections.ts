/**
 * Which part of a prompt is fused, as runs [mask, length] over `instruction` + `response` positions: the share `proportion` (0 to 1) of
 * the instruction, at its front or its back, has mask 1; everything else -1. Empty runs are left out, equal neighbours are one.
 */
export function kvSections(
  instruction: number,
  response: number,
  proportion: number,
  order: "front" | "back",
): [number, number][] {
  const fused = Math.trunc(proportion * instruction);
  const rest = instruction - fused;
  const runs: [number, number][] =
    order === "back"
      ? [
          [-1, rest],
          [1, fused],
          [-1, response],
        ]
      : [
          [1, fused],
          [-1, rest],
          [-1, response],
        ];
  const sections: [number, number][] = [];
  for (const [mask, length] of runs) {
    const last = sections.at(-1);
    if (length === 0) continue;
    if (last?.[0] === mask) last[1] += length;
    else sections.push([mask, length]);
  }
  return sections;
}
