import { at, colour, label, legend, line, linear, svgDocument, ticks, tickText } from "./svg.js";

/** A curve: [x, y] points in order. A y that is not finite breaks the line. */
export interface LineSeries {
  readonly name: string;
  readonly points: readonly (readonly [number, number])[];
}

/** One plot with its own y axis. `low`, `high`: values that the axis must reach; default: what the points span. */
export interface LinePanel {
  readonly y: string;
  readonly low?: number;
  readonly high?: number;
  readonly series: readonly LineSeries[];
}

/** Panels stand above one another and share the x axis. `x` and each panel's `y` name the axes with their units. */
export interface LineChart {
  readonly title: string;
  readonly x: string;
  readonly panels: readonly LinePanel[];
}

const WIDTH = 720;
const LEFT = 64;
const RIGHT = WIDTH - 20;
const PANEL = 190;

/** Draws curves as an SVG document: the same text for the same numbers. Panels without points keep their axes. */
export function lineChart(chart: LineChart): string {
  const xs = chart.panels
    .flatMap(({ series }) => series.flatMap(({ points }) => points.map(([x]) => x)))
    .filter(finite);
  const [first, last] = range(xs);
  const places = ticks(first, last, 8).filter((tick) => tick >= first && tick <= last);
  const x = linear(first, last, LEFT, RIGHT);
  const body: string[] = [];
  let top = 44;
  let names = 0;
  for (const panel of chart.panels) {
    const key = legend(
      panel.series.map(({ name }) => name),
      LEFT,
      top + 10,
      RIGHT,
    );
    // Colours go on through the panels, so that a colour means one thing in the whole picture.
    body.push(recolour(key.svg, names));
    const upper = top + key.height + 8;
    const lower = upper + PANEL;
    const ys = panel.series.flatMap(({ points }) => points.map(([, y]) => y)).filter(finite);
    const [least, most] = range([...ys, ...[panel.low, panel.high].filter((y) => y !== undefined)]);
    const marks = ticks(least, most);
    const y = linear(marks[0] ?? 0, marks.at(-1) ?? 1, lower, upper);
    for (const mark of marks) {
      body.push(
        line("grid", LEFT, y(mark), RIGHT, y(mark)),
        label(LEFT - 8, y(mark) + 4, tickText(mark), "end", "small"),
      );
    }
    body.push(line("axis", LEFT, lower, RIGHT, lower), line("axis", LEFT, upper, LEFT, lower));
    body.push(
      `<g transform="rotate(-90 16 ${at((upper + lower) / 2)})">${label(16, (upper + lower) / 2, panel.y, "middle")}</g>`,
    );
    for (const [i, { points }] of panel.series.entries()) {
      body.push(
        curve(
          points.map(([px, py]) => [finite(px) && finite(py) ? x(px) : Number.NaN, y(py)]),
          names + i,
        ),
      );
    }
    names += panel.series.length;
    for (const place of places) body.push(line("axis", x(place), lower, x(place), lower + 4));
    top = lower + 14;
  }
  for (const place of places) body.push(label(x(place), top + 6, tickText(place), "middle", "small"));
  body.push(label((LEFT + RIGHT) / 2, top + 26, chart.x, "middle"));
  return svgDocument(WIDTH, top + 40, chart.title, body);
}

function curve(points: readonly (readonly [number, number])[], series: number): string {
  let path = "";
  let pen = false;
  for (const [px, py] of points) {
    if (finite(px)) path += `${pen ? "L" : "M"}${at(px)} ${at(py)}`;
    pen = finite(px);
  }
  const [only] = points;
  const dot =
    points.length === 1 && only && finite(only[0])
      ? `<circle fill="${colour(series)}" cx="${at(only[0])}" cy="${at(only[1])}" r="3"/>`
      : "";
  return `<path class="series" stroke="${colour(series)}" d="${path}"/>${dot}`;
}

function recolour(svg: string, shift: number): string {
  let i = 0;
  return svg.replace(/fill="#[0-9a-f]{6}"/g, () => `fill="${colour(shift + i++)}"`);
}

function range(values: readonly number[]): readonly [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low <= high ? [low, high] : [0, 1];
}

function finite(value: number): boolean {
  return Number.isFinite(value);
}
