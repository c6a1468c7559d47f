import { at, colour, label, legend, line, linear, svgDocument, textWidth, ticks, tickText } from "./svg.js";

/** A bar's height; `low` and `high` are the ends of its error bar. */
export interface Bar {
  readonly value: number;
  readonly low?: number;
  readonly high?: number;
}

/** One bar in each group, of one colour; null where a group has none. */
export interface BarSeries {
  readonly name: string;
  readonly bars: readonly (Bar | null)[];
}

/** Groups stand side by side along x. `y` names the axis with its unit; `high` is a value it must reach (it begins at 0 or below). */
export interface BarChart {
  readonly title: string;
  readonly y: string;
  readonly high?: number;
  readonly groups: readonly string[];
  readonly series: readonly BarSeries[];
}

const LEFT = 64;
const PLOT = 260;
const LEAST_BAR = 16;

/** Draws grouped bars with error bars and their values as an SVG document: the same text for the same numbers. */
export function barChart(chart: BarChart): string {
  const count = Math.max(1, chart.series.length);
  const longest = Math.max(0, ...chart.groups.map(textWidth));
  const widest = Math.max(
    ...chart.series.flatMap(({ bars }) => bars.map((bar) => (bar ? textWidth(valueText(bar.value)) : 0))),
    0,
  );
  const bar = Math.max(LEAST_BAR, widest * 0.9, Math.min(48, longest / count));
  const group = Math.max(bar * count + 28, longest + 16);
  const width = Math.max(480, Math.ceil(LEFT + group * chart.groups.length + 20));
  // One series needs no legend: the y axis names it.
  const names = count > 1 ? chart.series.map(({ name }) => name) : [];
  const key = legend(names, LEFT, 54, width - 20);
  const upper = 58 + key.height;
  const lower = upper + PLOT;
  const marks = ticks(...reach(chart));
  const y = linear(marks[0] ?? 0, marks.at(-1) ?? 1, lower, upper);
  const body = [key.svg];
  for (const mark of marks) {
    body.push(
      line("grid", LEFT, y(mark), width - 20, y(mark)),
      label(LEFT - 8, y(mark) + 4, tickText(mark), "end", "small"),
    );
  }
  body.push(
    `<g transform="rotate(-90 16 ${at((upper + lower) / 2)})">${label(16, (upper + lower) / 2, chart.y, "middle")}</g>`,
  );
  for (const [g, name] of chart.groups.entries()) {
    const middle = LEFT + group * (g + 0.5);
    body.push(label(middle, lower + 18, name, "middle"));
    for (const [s, { bars }] of chart.series.entries()) {
      const given = bars[g];
      if (given) body.push(drawBar(given, middle + (s - count / 2) * bar, bar, s, y));
    }
  }
  body.push(line("axis", LEFT, y(0), width - 20, y(0)), line("axis", LEFT, upper, LEFT, lower));
  return svgDocument(width, lower + 34, chart.title, body);
}

function drawBar(
  { value, low, high }: Bar,
  left: number,
  width: number,
  series: number,
  y: (value: number) => number,
): string {
  if (!Number.isFinite(value)) return "";
  const edge = Math.min(y(value), y(0));
  const parts = [
    `<rect fill="${colour(series)}" x="${at(left + 1)}" y="${at(edge)}" width="${at(width - 2)}" height="${at(Math.abs(y(value) - y(0)))}"/>`,
  ];
  const middle = left + width / 2;
  if (low !== undefined && high !== undefined) {
    parts.push(line("error", middle, y(low), middle, y(high)));
    for (const end of [low, high]) parts.push(line("error", middle - 4, y(end), middle + 4, y(end)));
  }
  parts.push(label(middle, Math.min(edge, y(high ?? value)) - 5, valueText(value), "middle", "small"));
  return parts.join("");
}

/** The values that the axis must cover: 0, every bar and every error bar. */
function reach(chart: BarChart): readonly [number, number] {
  const all = chart.series.flatMap(({ bars }) =>
    bars.flatMap((bar) => (bar ? [bar.value, bar.low ?? bar.value, bar.high ?? bar.value] : [])),
  );
  const values = all.filter(Number.isFinite);
  return [Math.min(0, ...values), Math.max(chart.high ?? 0, ...values)];
}

function valueText(value: number): string {
  return String(Number(value.toPrecision(3)));
}
