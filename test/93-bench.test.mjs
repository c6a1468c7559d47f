// What the bench makes of its measurements: medians, floors, table and charts.
import { readFile } from "node:fs/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { floors, join } from "../bench/floors.mjs";
import { median } from "../bench/median.mjs";
import { configs } from "../bench/models.mjs";
import { charts, table } from "../bench/report.mjs";

const test = suite("bench");

const measured = (readGBs, gflops) => ({
  threads: 2,
  readGBs,
  products: [64, 256, 1024].map((rows) => ({ dtype: "bfloat16", rows, gflops: gflops - rows / 1000 })),
});

test("the median of an even count is the mean of both middles", () => {
  assert.is(median([3, 1, 2]), 2);
  assert.is(median([4, 1, 2, 30]), 3);
  assert.is(median([7]), 7);
});

test("a machine measured several times is the median of its measurements, with their range", () => {
  const machine = join([measured(50, 700), measured(80, 760), measured(60, 720)]);
  assert.is(machine.readGBs, 60);
  assert.equal(machine.readRange, [50, 80]);
  assert.is(machine.products[0].gflops, 720 - 0.064);
});

test("floors: bytes for one row, products for many, the best rate from 256 rows on", () => {
  const machine = join([measured(60, 720)]);
  const { receiver } = configs;
  const weights = 28 * (1024 * 128 * (2 * 16 + 2 * 8) + 3 * 1024 * 3072) + 151936 * 1024;
  const cache = 28 * 2 * 8 * 128 * 1024 * 2;
  assert.ok(Math.abs(floors.decode(machine, receiver, "bfloat16", 1024) / ((weights * 2 + cache) / 60e6) - 1) < 1e-9);
  const prefill = (n) => floors.prefill(machine, receiver, "bfloat16", n);
  // 1,024 rows are multiplied at 256 rows' rate, which is the better one here; attention makes it more than linear.
  assert.ok(prefill(1024) > 4 * prefill(256) && prefill(1024) < 4.5 * prefill(256));
  assert.is(floors.fusion(machine, {}, "bfloat16", 64, 0), null);
});

test("recorded rows become a table and charts", async () => {
  const url = new URL("../bench/results/decode-bfloat16.json", import.meta.url);
  const { rows } = JSON.parse(await readFile(url, "utf8"));
  const [machine, head, ...lines] = table(rows, join([measured(50, 700), measured(60, 720)]), ["a note"]).split("\n");
  assert.match(machine, /^2 threads, read 55 GB\/s \(50–60\), packed products up to 710 \(bfloat16\)/);
  assert.match(head, /^suite +variant +dtype +tokens +ms/);
  assert.is(lines.length, rows.length + 1);
  assert.is(lines.at(-1), "a note");
  assert.match(lines[0], new RegExp(`^decode +one +bfloat16 +16 +${Number(rows[0].ms.toPrecision(3))} `));
  const [[file, svg]] = charts(rows);
  assert.is(file, "decode-bfloat16.svg");
  for (const peer of Object.keys(rows[0].peers)) assert.ok(svg.includes(peer));
});

test.run();
