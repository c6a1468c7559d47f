import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ticks } from "../dist/chart/svg.js";
import { barChart, lineChart } from "../dist/chart.js";
import { readRows } from "../dist/data/rows.js";
import { fails } from "./support.mjs";

const fixtures = fileURLToPath(new URL("fixtures/tasks/", import.meta.url));
let folder;
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "rows-"));
});
test.after(() => rm(folder, { recursive: true }));

async function all(path) {
  const rows = [];
  for await (const row of readRows(path)) rows.push(row);
  return rows;
}

async function file(name, content) {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}

test("JSON lines: order, empty lines, a byte order mark, line ends of all kinds, no last line end", async () => {
  const path = await file("a.jsonl", '\ufeff{"a":1}\r\n\n  \n{"b":"\u2028 ä 🙂"}\n{"c":[1,{"d":null}]}');
  assert.equal(await all(path), [{ a: 1 }, { b: "\u2028 ä 🙂" }, { c: [1, { d: null }] }]);
  assert.equal(await all(await file("empty.jsonl", "")), []);
});

test("JSON lines: what is wrong is named with its line", async () => {
  for (const [content, reason] of [
    ['{"a":1}\n\n{"a":\n', /line 3 is not JSON/],
    ['{"a":1}\n[1]\n', /line 2 is not a JSON object/],
    ['{"a":1}\nnull\n', /line 2 is not a JSON object/],
    [Buffer.from([0x7b, 0x7d, 0x0a, 0x22, 0xff, 0x22]), /line 2 is not UTF-8/],
  ]) {
    await fails(all(await file("bad.jsonl", content)), "FILE_INVALID", reason);
  }
});

test("parquet as the hub writes it: lists, structs of lists, several row groups; the same rows as the JSON lines", async () => {
  for (const name of ["mmlu-redux", "openbookqa"]) {
    assert.equal(await all(join(fixtures, `${name}.parquet`)), await all(join(fixtures, `${name}.jsonl`)));
  }
});

test("parquet: gzip; 64-bit integers are numbers where they fit", async () => {
  assert.equal(await all(join(fixtures, "plain-gzip.parquet")), [
    { n: 1, word: "ä" },
    { n: 2, word: "" },
    { n: 9007199254740993n, word: "c" },
  ]);
});

test("parquet: cut short or damaged is FILE_INVALID with the rows", async () => {
  const bytes = await readFile(join(fixtures, "mmlu-redux.parquet"));
  await fails(all(await file("cut.parquet", bytes.subarray(0, 700))), "FILE_INVALID", /the footer/);
  await fails(all(await file("none.parquet", "")), "FILE_INVALID", /the footer/);
  const damaged = Buffer.from(bytes);
  damaged.fill(0xff, 4, 300);
  await fails(all(await file("damaged.parquet", damaged)), "FILE_INVALID", /rows 0 to 1/);
});

test("what the system refuses is IO_FAILED; other files are UNSUPPORTED", async () => {
  await fails(all(join(folder, "missing.jsonl")), "IO_FAILED", /ENOENT/);
  await fails(all(join(folder, "missing.parquet")), "IO_FAILED", /ENOENT/);
  await fails(all(await file("a.csv", "a,b")), "UNSUPPORTED", /jsonl/);
});

test("a reader that stops early closes the file", async () => {
  for (const name of ["mmlu-redux.jsonl", "mmlu-redux.parquet"]) {
    for await (const row of readRows(join(fixtures, name))) {
      assert.is(row.answer, 2);
      break;
    }
  }
});

/** Every tag that is opened is closed: enough for documents made here. */
function wellFormed(svg) {
  const open = [];
  for (const [, close, name, empty] of svg.matchAll(/<(\/?)([a-z]+)[^>]*?(\/?)>/g)) {
    if (close) assert.is(open.pop(), name);
    else if (!empty) open.push(name);
  }
  assert.equal(open, []);
}

const curves = {
  title: `loss & <gates> "of" a\u0007 run`,
  x: "step",
  panels: [
    {
      y: "loss",
      series: [
        {
          name: "training",
          points: [
            [0, 3],
            [10, 2],
            [20, Number.NaN],
            [30, 1],
          ],
        },
      ],
    },
    { y: "open gates", low: 0, high: 4, series: [{ name: "open", points: [[0, 4]] }] },
  ],
};

test("line charts: the same text each time, escaped, with a gap where a number is missing", () => {
  const svg = lineChart(curves);
  assert.is(svg, lineChart(structuredClone(curves)));
  wellFormed(svg);
  assert.match(svg, "loss &amp; &lt;gates&gt; &quot;of&quot; a run");
  const [, path] = /<path[^>]* d="([^"]+)"/.exec(svg);
  assert.is([...path.matchAll(/M/g)].length, 2);
  assert.match(svg, /<circle/);
  assert.not.match(svg, /NaN|Infinity|undefined/);
  wellFormed(lineChart({ title: "", x: "", panels: [{ y: "", series: [] }] }));
});

test("bar charts: heights and error bars lie where the axis says", () => {
  const svg = barChart({
    title: "accuracy",
    y: "correct (%)",
    high: 100,
    groups: ["one", "two"],
    series: [
      { name: "a", bars: [{ value: 50, low: 40, high: 60 }, null] },
      { name: "b", bars: [{ value: 100 }, { value: 0 }] },
    ],
  });
  wellFormed(svg);
  const heights = [...svg.matchAll(/<rect fill="[^"]+" x="[^"]+" y="[^"]+" width="[^"]+" height="([^"]+)"\/>/g)].map(
    ([, height]) => Number(height),
  );
  assert.equal(heights, [130, 260, 0]);
  const errors = [...svg.matchAll(/<line class="error" x1="[^"]+" y1="([^"]+)" x2="[^"]+" y2="([^"]+)"/g)];
  assert.is(errors.length, 3);
  assert.ok(Math.abs(Number(errors[0][1]) - Number(errors[0][2]) - 52) < 0.02);
  assert.not.match(svg, /NaN|undefined/);
});

test("ticks are round numbers that cover the range", () => {
  assert.equal(ticks(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.equal(ticks(0.3, 3.5), [0, 1, 2, 3, 4]);
  assert.equal(ticks(7, 7).length > 1, true);
  assert.equal(ticks(-1, 1), [-1, -0.5, 0, 0.5, 1]);
});

test.run();
