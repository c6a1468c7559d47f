// The bench's table and charts.
import { barChart } from "../dist/chart.js";

const short = (value, digits = 3) =>
  value === null || value === undefined ? "-" : String(Number(value.toPrecision(digits)));

/** A table for the terminal, the measured machine above it and what is missing below. */
export function table(rows, machine, notes) {
  const head = [
    "suite",
    "variant",
    "dtype",
    "tokens",
    "ms",
    "min–max",
    "floor",
    "×floor",
    "peers (their time ÷ ours; the same at one bandwidth)",
  ];
  const lines = rows.map((r) => [
    r.suite,
    r.variant,
    r.dtype,
    String(r.prompt),
    short(r.ms),
    `${short(r.min)}–${short(r.max)}`,
    short(r.floorMs),
    short(r.overFloor),
    Object.entries(r.peers)
      .map(([name, p]) => `${name} ${short(p.ratio)}${p.level ? ` (${short(p.level)})` : ""}`)
      .join(", "),
  ]);
  const widths = head.map((h, i) => Math.max(h.length, ...lines.map((l) => l[i].length)));
  const print = (cells) =>
    cells.map((c, i) => (i > 2 && i < 8 ? c.padStart(widths[i]) : c.padEnd(widths[i]))).join("  ");
  const best = (dtype) => Math.max(...machine.products.filter((p) => p.dtype === dtype).map((p) => p.gflops));
  return [
    `${machine.threads} threads, read ${short(machine.readGBs)} GB/s (${machine.readRange.map((rate) => short(rate)).join("–")}), packed products up to ${short(best("bfloat16"))} (bfloat16) and ${short(best("float32"))} GFLOP/s (float32)`,
    print(head),
    ...lines.map(print),
    ...notes,
  ].join("\n");
}

/** [file name, SVG]: for each suite and dtype, time over floor and the peers' time over ours. */
export function charts(rows) {
  const groups = Map.groupBy
    ? Map.groupBy(rows, (r) => `${r.suite}-${r.dtype}`)
    : rows.reduce((all, r) => {
        const key = `${r.suite}-${r.dtype}`;
        return all.set(key, [...(all.get(key) ?? []), r]);
      }, new Map());
  return [...groups].map(([name, group]) => {
    const names = [...new Set(group.flatMap((r) => Object.keys(r.peers)))];
    const series = [
      { name: "cache-to-cache", bars: group.map((r) => ({ value: r.ms, low: r.min, high: r.max })) },
      { name: "hardware floor", bars: group.map((r) => (r.floorMs === null ? null : { value: r.floorMs })) },
      ...names.map((peer) => ({
        name: peer,
        bars: group.map((r) => (r.peers[peer] ? { value: r.peers[peer].ms } : null)),
      })),
    ];
    const title = `${name.replace("-", ", ")}: milliseconds, lower is better`;
    return [`${name}.svg`, barChart({ title, y: "ms", groups: group.map((r) => `${r.variant} ${r.prompt}`), series })];
  });
}
