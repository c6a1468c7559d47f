// Caches in 8 and 4 bits: what they save, how far they are off, and that they can do what others can.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { fuse, inspectCache, loadCache, loadFuser, loadModel } from "../dist/index.js";
import { liveHandles } from "../dist/testing.js";
import { fails } from "./support.mjs";

const pair = fileURLToPath(new URL("../models/pair", import.meta.url));
const source = (name) => ({ kind: "folder", path: join(pair, name) });
const test = suite("quantized caches");
const forms = ["int8", "int4"];
let folder = "";
let receiver;
let sharer;
let fuser;
const kept = [];
const keep = (cache) => {
  kept.push(cache);
  return cache;
};

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-quantized-"));
  receiver = await loadModel(source("receiver"));
  sharer = await loadModel(source("sharer"));
  fuser = await loadFuser(source("fuser"), { receiver, sharer });
});
test.after.each(() => {
  for (const cache of kept.splice(0)) cache.dispose();
});
test.after(async () => {
  for (const handle of [fuser, sharer, receiver]) await handle.dispose();
  await rm(folder, { recursive: true, force: true });
  assert.is(liveHandles().cache, 0);
});

async function prefilled(model, rows = 100) {
  const ids = Array.from({ length: rows }, (_, i) => 20 + ((i * 37) % 400));
  return keep(await model.prefill(model.tokens(ids)));
}
const rowsOf = (cache, range) =>
  Array.from({ length: cache.shape.layers }, (_, layer) => [
    cache.read(layer, "key", range),
    cache.read(layer, "value", range),
  ]).flat();
function difference(a, b) {
  return a.reduce((most, rows, i) => rows.reduce((top, x, j) => Math.max(top, Math.abs(x - b[i][j])), most), 0);
}
function relative(a, b, part) {
  let off = 0;
  let size = 0;
  for (let i = part; i < a.length; i += 2) {
    a[i].forEach((x, j) => {
      off += (x - b[i][j]) ** 2;
      size += x ** 2;
    });
  }
  return Math.sqrt(off / size);
}

for (const form of forms) {
  test(`${form}: the report is true`, async () => {
    const cache = await prefilled(sharer);
    const { cache: small, report } = await cache.quantize(form);
    keep(small);
    assert.is(small.bytes, report.bytes);
    const { layers, kvHeads, headDim } = cache.shape;
    assert.is(report.bytes + report.saved, 100 * layers * 2 * kvHeads * headDim * 4);
    assert.ok(report.saved > report.bytes * (form === "int8" ? 2 : 3.5), `${report.saved} of ${report.bytes}`);
    const [before, after] = [rowsOf(cache), rowsOf(small)];
    assert.ok(Math.abs(relative(before, after, 0) - report.keyError.relative) < 1e-6);
    assert.ok(Math.abs(relative(before, after, 1) - report.valueError.relative) < 1e-6);
    assert.ok(report.keyError.relative > 0 && report.keyError.relative < (form === "int8" ? 0.01 : 0.1));
    const most = Math.max(report.keyError.largest, report.valueError.largest);
    assert.ok(Math.abs(difference(before, after) - most) < 1e-6);
    assert.equal([...small.tokens], [...cache.tokens]);
  });

  test(`${form}: a fuser reads the rows in pieces as it reads them whole`, async () => {
    const { cache: small } = await (await prefilled(sharer, 300)).quantize(form);
    keep(small);
    await sharer.prefill(sharer.tokens([5, 6, 7]), { into: small });
    // The same numbers as plain rows: what the plain path reads.
    const whole = await prefilled(sharer, 303);
    for (let layer = 0; layer < sharer.shape.layers; layer++) {
      for (const part of ["key", "value"]) whole.write(layer, part, 0, small.read(layer, part));
    }
    const onto = await prefilled(receiver, 303);
    const other = keep(onto.fork());
    const span = (start, end, from) => ({ receiver: { start, end }, sharer: { start: from, end: from + end - start } });
    const spans = [span(0, 3, 2), span(10, 240, 33), span(250, 290, 263)];
    const reports = await fuse(onto, [{ fuser, sharer: small, spans }]);
    assert.equal(
      (await fuse(other, [{ fuser, sharer: whole, spans }]))[0].gates.map(({ key, value }) => [key, value]),
      reports[0].gates.map(({ key, value }) => [key, value]),
    );
    assert.ok(difference(rowsOf(onto), rowsOf(other)) < 1e-4);
    assert.ok(difference(rowsOf(onto), rowsOf(await prefilled(receiver, 303))) > 1e-2, "something was fused");
  });

  test(`${form}: appended, edited, forked, decoded, fused into`, async () => {
    const { cache: small } = await (await prefilled(receiver)).quantize(form);
    keep(small);
    const fork = keep(small.fork());
    await receiver.prefill(receiver.tokens([1, 2, 3]), { into: small });
    assert.is(small.length, 103);
    assert.is(difference(rowsOf(small, { start: 0, end: 100 }), rowsOf(fork)), 0);
    small.erase(4, 30);
    small.write(0, "value", 3, new Float32Array(receiver.shape.kvHeads * receiver.shape.headDim).fill(2));
    assert.is(small.read(0, "value", { start: 3, end: 4 })[0], 2);
    const generation = receiver.generate(small, receiver.tokens([4]), { maxNewTokens: 3, eos: [] });
    await generation.done();
    await generation[Symbol.asyncDispose]();
    assert.ok(small.length >= 79);
    await fuse(fork, [{ fuser, sharer: await prefilled(sharer) }]);
  });

  test(`${form}: saved in few bits, and loaded in as few`, async () => {
    const cache = await prefilled(receiver);
    const path = join(folder, form);
    const { cache: small, report } = await cache.quantize(form);
    keep(small);
    const saved = await cache.save(path, { quantize: form });
    assert.equal([saved.keyError, saved.valueError, saved.saved], [report.keyError, report.valueError, report.saved]);
    assert.ok(saved.bytes - report.bytes < 4096, "header, tokens and positions are the rest");
    const loaded = keep(await loadCache(path, receiver));
    assert.is(difference(rowsOf(loaded), rowsOf(small)), 0);
    assert.is(loaded.bytes, report.bytes);
    assert.equal((await inspectCache(path)).parts, [{ form, rows: 100 }]);
    // Cut in the middle of a group of rows, with plain rows behind, and saved again: nothing is quantised twice.
    const part = keep(loaded.slice(37, 81));
    await receiver.prefill(receiver.tokens([1, 2]), { into: part });
    await part.save(`${path}-part`);
    assert.equal((await inspectCache(`${path}-part`)).parts, [
      { form, rows: 44 },
      { form: "plain", rows: 2 },
    ]);
    const again = keep(await loadCache(`${path}-part`, receiver));
    assert.is(difference(rowsOf(again), rowsOf(part)), 0);
    assert.equal([...again.positions], [...part.positions]);
  });
}

test("an empty cache, a form that is none, an abort, rows that are not finite", async () => {
  const { cache: none, report } = await keep(receiver.cache()).quantize("int8");
  keep(none);
  assert.equal([none.length, report.bytes, report.saved, report.keyError.relative], [0, 0, 0, 0]);
  const cache = await prefilled(receiver);
  await fails(cache.quantize("int2"), "OPTION_INVALID");
  await fails(cache.save(join(folder, "x"), { quantize: "int2" }), "OPTION_INVALID");
  const reason = new Error("enough");
  assert.is(await cache.quantize("int8", { signal: AbortSignal.abort(reason) }).catch((error) => error), reason);
  const row = new Float32Array(receiver.shape.kvHeads * receiver.shape.headDim).fill(Number.POSITIVE_INFINITY);
  cache.write(0, "key", 0, row);
  await fails(cache.quantize("int8"), "OPTION_INVALID", /finite/);
  await cache.save(join(folder, "infinite"));
  keep(await loadCache(join(folder, "infinite"), receiver));
  cache.dispose();
  await fails(cache.quantize("int8"), "DISPOSED");
});

test.run();
