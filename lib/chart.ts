/** Charts without a library: SVG documents that any browser shows, on light and dark pages. */
export { type Bar, type BarChart, type BarSeries, barChart } from "./chart/bars.js";
export { type LineChart, type LinePanel, type LineSeries, lineChart } from "./chart/lines.js";
