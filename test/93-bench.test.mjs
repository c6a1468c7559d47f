// What the bench makes of its measurements: medians, floors, table and charts.
import { readFile } from "node:fs/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { against, alike, floors, join } from "../bench/floors.mjs";
import { median } from "../bench/median.mjs";
import { configs } from "../bench/models.mjs";
import { charts, table } from "../bench/report.mjs";
import { inTurns, steady, warmed } from "../bench/runs.mjs";

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

test("fusion's floor leaves out what a weight's block need not compute", () => {
  const machine = join([measured(60, 720)]);
  const size = { sharer: 2, receiver: 3, receiverHeads: 5, hidden: 7, intermediate: 11, layers: 3 };
  // in, first block, weight's up, its map and the heads' as one, second block, out.
  const weights = 7 * 5 + 2 * 7 * 11 + 7 * 7 + 5 * (7 + 7) + 2 * 7 * 11 + 3 * 7;
  const flops = 2 * 1024 * weights;
  const rate = machine.products.find(({ rows }) => rows === 256).gflops;
  // The bytes of so small a fuser at 1,024 rows take no longer.
  const floor = floors.fusion({ ...machine, readGBs: 1e9 }, size, "bfloat16", 1024, 1);
  assert.ok(Math.abs(floor / (flops / rate / 1e6) - 1) < 1e-9);
});

test("runs in turns, each with the bandwidth before and after it", async () => {
  let read = 0;
  const order = [];
  const work = (name, ms) => async () => {
    order.push(name);
    return ms.shift();
  };
  const found = await inTurns(async () => ++read, 3, [work("a", [1, 9, 2]), work("b", [5, 4, 6])]);
  assert.equal(order, ["a", "b", "a", "b", "a", "b"]);
  assert.equal(
    found.map(({ ms }) => ms),
    [2, 5],
  );
  assert.equal(found[1].runs, [
    { ms: 5, reads: [2, 3] },
    { ms: 4, reads: [4, 5] },
    { ms: 6, reads: [6, 7] },
  ]);
  for (const [ms, runs] of [
    [20, 9],
    [300, 4],
    [2000, 2],
  ])
    assert.is(
      (
        await warmed(
          async () => 1,
          async () => ms,
        )
      ).runs.length,
      runs,
    );
});

const run = (ms, before, after = before) => ({ ms, reads: [before, after] });

test("a row's floor takes the bandwidth of each of its steady runs", () => {
  const machine = { readGBs: 40 };
  const floorOf = ({ readGBs }) => 1000 / readGBs;
  // The run through which the bandwidth doubled says nothing.
  const runs = [run(24, 50), run(50, 25), run(1, 25, 50)];
  assert.equal(steady(runs), [
    { ms: 24, readGBs: 50 },
    { ms: 50, readGBs: 25 },
  ]);
  const found = against(floorOf, machine, 37, runs);
  assert.is(found.overFloor, (24 / 20 + 50 / 40) / 2);
  assert.is(found.floorMs, 37 / found.overFloor);
  assert.equal(found.readGBs, { median: 37.5, min: 25, max: 50, runs: 2 });
  assert.equal(against(floorOf, machine, 50, [run(1, 25, 50)]), { floorMs: 25, overFloor: 2 });
  assert.equal(
    against(() => null, machine, 50, runs),
    { floorMs: null, overFloor: null },
  );
});

test("a peer is held against runs that had as much bandwidth", () => {
  const ours = [run(10, 60), run(12, 61), run(20, 30), run(1, 30, 60)];
  assert.equal(alike(ours, [run(22, 60), run(60, 31), run(1, 60, 30)]), { level: 2.5, levelRuns: 2 });
  assert.equal(alike(ours, [run(22, 90)]), { level: null, levelRuns: 0 });
});

test("recorded rows become a table and charts", async () => {
  const url = new URL("../bench/results/xeon/decode-bfloat16.json", import.meta.url);
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
