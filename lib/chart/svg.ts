/** What the charts share: scales, ticks, escaped text and a style that is readable on light and on dark pages. */

/** Maps a value to a coordinate. */
export type Scale = (value: number) => number;

/** Colours told apart by most eyes, on white and on black (after Okabe and Ito); they repeat after the eighth. */
const COLOURS = ["#0080c8", "#d55e00", "#009e73", "#cc79a7", "#b98500", "#8a6fd1", "#7a8794", "#c23b4b"] as const;

/** Text between tags or in an attribute: markup is escaped, control characters (which XML forbids) are dropped. */
function escapeText(text: string): string {
  const names: Readonly<Record<string, string>> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[^\t\n\r\P{Cc}]|[\ufffe\uffff]/gu, "").replace(/[&<>"']/g, (c) => names[c] ?? c);
}

/** A coordinate with at most two decimals: the same drawing on every machine. */
export function at(value: number): string {
  return String(Math.round(value * 100) / 100);
}

/** One line of text; `anchor` says which end of it stands at x. */
export function label(x: number, y: number, text: string, anchor: "start" | "middle" | "end", kind = "t"): string {
  return `<text class="${kind}" x="${at(x)}" y="${at(y)}" text-anchor="${anchor}">${escapeText(text)}</text>`;
}

/** A straight line of a style class: "axis", "grid" or "error". */
export function line(kind: string, x1: number, y1: number, x2: number, y2: number): string {
  return `<line class="${kind}" x1="${at(x1)}" y1="${at(y1)}" x2="${at(x2)}" y2="${at(y2)}"/>`;
}

/** A linear scale from [low, high] to [from, to]. */
export function linear(low: number, high: number, from: number, to: number): Scale {
  const width = high - low || 1;
  return (value) => from + ((value - low) / width) * (to - from);
}

/** Round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high], about `count` of them. */
export function ticks(low: number, high: number, count = 5): readonly number[] {
  const wide = high > low ? high - low : Math.abs(low) || 1;
  const raw = wide / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999) ?? 10);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(Math.ceil(high / step - 1e-9), first + 1);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** A tick's number, short: 1500, 0.25, 2e-5. */
export function tickText(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-4)) return value.toExponential().replace("e+", "e");
  return String(value);
}

/** A row of coloured squares with names, from (x, y) on; wraps before `right`. Returns the drawing and its height. */
export function legend(names: readonly string[], x: number, y: number, right: number): { svg: string; height: number } {
  let left = x;
  let top = y;
  const parts = names.map((name, i) => {
    const width = 24 + textWidth(name);
    if (left > x && left + width > right) {
      left = x;
      top += 18;
    }
    const part = `<rect fill="${colour(i)}" x="${at(left)}" y="${at(top - 9)}" width="10" height="10" rx="2"/>${label(left + 15, top, name, "start")}`;
    left += width;
    return part;
  });
  return { svg: parts.join("\n"), height: names.length === 0 ? 0 : top - y + 18 };
}

/** About how wide a text is in the charts' type, in pixels: nothing measures it here. */
export function textWidth(text: string): number {
  return [...text].length * 6.7;
}

/** The colour of series `i`. */
export function colour(i: number): string {
  return COLOURS[i % COLOURS.length] ?? COLOURS[0];
}

/** A whole document with its own ground, title and styles; dark where the page asks for it. */
export function svgDocument(width: number, height: number, title: string, body: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${at(height)}" width="${width}" height="${at(height)}" role="img" aria-label="${escapeText(title)}">
<style>
text{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.small{font-size:11px}
.ground{fill:#fff}.axis{stroke:#59636e}.grid{stroke:#d1d9e0}.error{stroke:#1f2328;stroke-width:1.4}.series{fill:none;stroke-width:1.8;stroke-linejoin:round}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}.axis{stroke:#9198a1}.grid{stroke:#30363d}.error{stroke:#e6edf3}}
</style>
<rect class="ground" width="${width}" height="${at(height)}"/>
${label(16, 26, title, "start", "title")}
${body.join("\n")}
</svg>
`;
}
