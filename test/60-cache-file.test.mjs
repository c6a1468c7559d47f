// Caches in files: what is saved comes back, whoever it belongs to; what is not whole is refused.
import { spawnSync } from "node:child_process";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
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
const test = suite("cache files");
let folder = "";
let receiver;
let sharer;
let fuser;
const kept = [];
function keep(cache) {
  kept.push(cache);
  return cache;
}
const at = (name) => join(folder, name);

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-caches-"));
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

const text = "Where does Livia Ridley live, and what does he do there all day long?";
async function prefilled(model, words = text) {
  return keep(await model.prefill(await model.encodeText(words)));
}

/** Rows of all layers, keys then values. */
function rowsOf(cache) {
  return Array.from({ length: cache.shape.layers }, (_, layer) => [
    cache.read(layer, "key"),
    cache.read(layer, "value"),
  ]).flat();
}
function difference(a, b) {
  assert.is(a.length, b.length);
  return a.reduce((most, rows, i) => {
    assert.is(rows.length, b[i].length);
    return rows.reduce((top, x, j) => Math.max(top, Math.abs(x - b[i][j])), most);
  }, 0);
}
/** The same rows; `tolerance`: where one was computed on runs of rows that the other has in one piece. */
function same(a, b, tolerance = 0) {
  assert.equal([...a.tokens], [...b.tokens]);
  assert.equal([...a.positions], [...b.positions]);
  const found = difference(rowsOf(a), rowsOf(b));
  assert.ok(found <= tolerance, `rows differ by ${found}`);
}
async function answer(model, cache) {
  const next = await model.encodeText(" He");
  const generation = model.generate(cache, next, { maxNewTokens: 8, eos: [] });
  const said = await generation.text();
  await generation[Symbol.asyncDispose]();
  return said;
}
const hidden = async () => (await readdir(folder)).filter((name) => name.startsWith("."));

test("what is saved comes back, and goes on in the same way", async () => {
  const cache = await prefilled(receiver);
  const report = await cache.save(at("a"));
  const loaded = keep(await loadCache(at("a"), receiver));
  same(loaded, cache);
  assert.is(report.bytes, (await readFile(at("a"))).length);
  assert.equal(
    { ...report, bytes: 0 },
    {
      bytes: 0,
      saved: 0,
      keyError: { relative: 0, largest: 0 },
      valueError: { relative: 0, largest: 0 },
    },
  );
  assert.is(await answer(receiver, loaded), await answer(receiver, cache));
  same(loaded, cache, 1e-5);
  assert.equal(await hidden(), []);
});

test("an empty cache", async () => {
  await keep(receiver.cache()).save(at("empty"));
  const loaded = keep(await loadCache(at("empty"), receiver));
  assert.is(loaded.length, 0);
  await receiver.prefill(await receiver.encodeText(text), { into: loaded });
  same(loaded, await prefilled(receiver));
});

test("forks, slices and edits are saved as they are", async () => {
  const cache = await prefilled(receiver);
  const fork = keep(cache.fork());
  await receiver.prefill(await receiver.encodeText(" And more."), { into: fork });
  fork.write(1, "value", 3, fork.read(0, "key", { start: 0, end: 2 }));
  fork.append(cache);
  fork.erase(2, 5);
  const slice = keep(fork.slice(3, fork.length - 2));
  for (const [name, one] of Object.entries({ cache, fork, slice })) {
    await one.save(at(name));
    same(keep(await loadCache(at(name), receiver)), one);
  }
});

test("rows of a file are shared, and copied when they are written over", async () => {
  const cache = await prefilled(receiver);
  await cache.save(at("cow"));
  const before = await readFile(at("cow"));
  const loaded = keep(await loadCache(at("cow"), receiver));
  const other = keep(loaded.fork());
  loaded.write(0, "key", 1, new Float32Array(loaded.shape.kvHeads * loaded.shape.headDim).fill(7));
  loaded.shift(3);
  loaded.erase(1, 4);
  await answer(receiver, loaded);
  same(other, cache);
  await loaded.save(at("cow"));
  same(keep(await loadCache(at("cow"), receiver)), loaded);
  same(other, cache); // its file is gone from the folder, and still mapped
  await writeFile(at("again"), before);
  same(keep(await loadCache(at("again"), receiver)), cache);
});

test("loaded caches are fused and fused into as others are", async () => {
  const [onto, from] = [await prefilled(receiver), await prefilled(sharer)];
  const end = Math.min(onto.length, from.length) - 1;
  const spans = [{ receiver: { start: 1, end }, sharer: { start: 1, end } }];
  await onto.save(at("onto"));
  await from.save(at("from"));
  const [onto2, from2] = [keep(await loadCache(at("onto"), receiver)), keep(await loadCache(at("from"), sharer))];
  await fuse(onto, [{ fuser, sharer: from, spans }]);
  await fuse(onto2, [{ fuser, sharer: from2, spans }]);
  same(onto2, onto);
});

test("what was fused into a cache is in its file, through all that moves its rows", async () => {
  const [onto, from] = [await prefilled(receiver), await prefilled(sharer)];
  const pairOf = (start, end) => ({ receiver: { start, end }, sharer: { start, end } });
  await fuse(onto, [{ fuser, sharer: from, spans: [pairOf(1, 3), pairOf(5, 9)] }]);
  await fuse(onto, [{ fuser, sharer: from, spans: [pairOf(3, 4)] }]);
  const said = async (cache) => {
    await cache.save(at("fused"));
    const { fused } = await inspectCache(at("fused"));
    return fused;
  };
  const [first, ...rest] = await said(onto);
  assert.equal(rest, []);
  assert.match(first.fuser, /^sha256:[0-9a-f]{64}$/);
  assert.match(first.sharer.fingerprint, /^sha256:[0-9a-f]{64}$/);
  assert.equal([first.kind, first.sharer.name], ["c2c", "sharer"]);
  assert.equal(first.rows, [
    { start: 1, end: 4 },
    { start: 5, end: 9 },
  ]);
  const rows = async (cache) => (await said(cache)).map((one) => one.rows);
  const fork = keep(onto.fork());
  fork.truncate(7);
  assert.equal(await rows(fork), [
    [
      { start: 1, end: 4 },
      { start: 5, end: 7 },
    ],
  ]);
  const slice = keep(onto.slice(2, 6));
  assert.equal(await rows(slice), [
    [
      { start: 0, end: 2 },
      { start: 3, end: 4 },
    ],
  ]);
  fork.erase(2, 6);
  assert.equal(await rows(fork), [[{ start: 1, end: 3 }]]);
  fork.append(slice);
  assert.equal(await rows(fork), [
    [{ start: 1, end: 3 }],
    [
      { start: 3, end: 5 },
      { start: 6, end: 7 },
    ],
  ]);
  const loaded = keep(await loadCache(at("fused"), receiver));
  assert.equal(await rows(loaded), await rows(fork));
  loaded.truncate(0);
  assert.equal(await rows(loaded), []);
  // A fuser has one fingerprint in either layout, and another where it is another fuser.
  const copy = at("fuser");
  await fuser.save(copy, { format: "native" });
  const again = await loadFuser({ kind: "folder", path: copy }, { receiver, sharer });
  const other = await prefilled(receiver);
  await fuse(other, [{ fuser: again, sharer: from, spans: [pairOf(0, 1)] }]);
  await again.dispose();
  assert.is((await said(other))[0].fuser, first.fuser);
});

test("a cache's policy and room come back with it", async () => {
  const make = () => keep(receiver.cache({ capacity: 24, policy: { kind: "sinks", sinks: 2, evict: 3 } }));
  const cache = make();
  await receiver.prefill(await receiver.encodeText(text.repeat(2)), { into: cache });
  await cache.save(at("policy"));
  const { capacity, policy } = await inspectCache(at("policy"));
  assert.equal({ capacity, policy }, { capacity: 24, policy: { kind: "sinks", sinks: 2, evict: 3 } });
  const loaded = keep(await loadCache(at("policy"), receiver));
  assert.is(loaded.capacity, 24);
  for (const one of [cache, loaded]) await receiver.prefill(await receiver.encodeText(text), { into: one });
  same(loaded, cache, 1e-5);
  const fixed = keep(receiver.cache({ capacity: 3, grow: false }));
  await receiver.prefill(receiver.tokens([1, 2]), { into: fixed });
  await fixed.save(at("fixed"));
  const full = keep(await loadCache(at("fixed"), receiver));
  await fails(receiver.prefill(receiver.tokens([1, 2]), { into: full }), "CACHE_FULL");
  await receiver.prefill(receiver.tokens([1]), { into: full });
});

test("another model's cache is refused", async () => {
  const cache = await prefilled(receiver);
  await cache.save(at("own"));
  await fails(loadCache(at("own"), sharer), "CACHE_FOREIGN", /receiver sha256:.*float32/);
  const coarse = await loadModel(source("receiver"), { dtype: "bfloat16" });
  await fails(loadCache(at("own"), coarse), "CACHE_FOREIGN", /bfloat16/);
  const quantized = await loadModel(source("receiver"), { quantize: "int8", dtype: "float32" });
  await fails(loadCache(at("own"), quantized), "CACHE_FOREIGN");
  // The same name and config, one weight changed.
  await cp(join(pair, "receiver"), at("receiver"), { recursive: true });
  const weights = await readFile(at("receiver/model.safetensors"));
  weights[weights.length - 2] ^= 1;
  await writeFile(at("receiver/model.safetensors"), weights);
  const changed = await loadModel({ kind: "folder", path: at("receiver") });
  await fails(loadCache(at("own"), changed), "CACHE_FOREIGN");
  for (const model of [coarse, quantized, changed]) await model.dispose();
});

test("a copy of the model in another folder reads it", async () => {
  await cp(join(pair, "receiver"), at("copy"), { recursive: true });
  const copy = await loadModel({ kind: "folder", path: at("copy") });
  const cache = await prefilled(receiver);
  await cache.save(at("own"));
  same(keep(await loadCache(at("own"), copy)), cache);
  await rm(at("copy"), { recursive: true });
  await loadCache(at("own"), copy).then((loaded) => loaded.dispose()); // its fingerprint is known by now
  await copy.dispose();
});

test("files that changed since a model was loaded have no fingerprint", async () => {
  await cp(join(pair, "receiver"), at("moved"), { recursive: true });
  const model = await loadModel({ kind: "folder", path: at("moved") });
  const cache = keep(await model.prefill(model.tokens([1, 2])));
  await rename(at("moved/config.json"), at("moved/config.old"));
  await fails(cache.save(at("x")), "IO_FAILED", /ENOENT/);
  await writeFile(at("moved/config.json"), "{}");
  await fails(cache.save(at("x")), "FILE_INVALID", /changed/);
  await rename(at("moved/config.old"), at("moved/config.json"));
  await cache.save(at("x"));
  await model.dispose();
});

test("any changed byte is noticed", async () => {
  const cache = keep(await receiver.prefill(receiver.tokens([1, 2, 3])));
  await cache.save(at("small"));
  const whole = await readFile(at("small"));
  const header = 8 + Number(whole.readBigUInt64LE(0));
  const places = Array.from({ length: header }, (_, i) => i);
  for (let i = header; i < whole.length; i += 37) places.push(i);
  for (const place of places) {
    const bytes = Buffer.from(whole);
    bytes[place] ^= 1 << (place % 8);
    await writeFile(at("changed"), bytes);
    await fails(loadCache(at("changed"), receiver), "FILE_INVALID");
  }
});

test("a file that is cut short or too long is noticed", async () => {
  const cache = await prefilled(receiver);
  await cache.save(at("long"));
  const whole = await readFile(at("long"));
  for (const length of [0, 1, 7, 8, 9, 100, 2000, whole.length >> 1, whole.length - 1]) {
    await writeFile(at("short"), whole.subarray(0, length));
    await fails(loadCache(at("short"), receiver), "FILE_INVALID");
    await fails(inspectCache(at("short")), "FILE_INVALID");
  }
  await writeFile(at("short"), Buffer.concat([whole, Buffer.alloc(8)]));
  await fails(loadCache(at("short"), receiver), "FILE_INVALID");
  for (const other of ["receiver/model.safetensors", "receiver/config.json"]) {
    await fails(loadCache(join(pair, other), receiver), "FILE_INVALID");
  }
});

test("what the system refuses", async () => {
  const cache = await prefilled(receiver);
  await fails(loadCache(at("missing"), receiver), "IO_FAILED", /ENOENT/);
  await fails(loadCache(folder, receiver), "IO_FAILED", /EISDIR/);
  await fails(cache.save(at("no/such/folder")), "IO_FAILED", /ENOENT/);
  await mkdir(at("directory/inside"), { recursive: true });
  await fails(cache.save(at("directory")), "IO_FAILED", /EISDIR|ENOTEMPTY|EEXIST/);
  await cache.save(at("secret"));
  await chmod(at("secret"), 0);
  const root = process.geteuid?.() === 0;
  if (root) process.seteuid(65534);
  try {
    await fails(loadCache(at("secret"), receiver), "IO_FAILED", /EACCES/);
  } finally {
    if (root) process.seteuid(0);
  }
  assert.equal(await hidden(), []);
});

test("a limit on the size of files leaves the old file as it was", async () => {
  const cache = keep(await receiver.prefill(receiver.tokens([1, 2, 3])));
  await cache.save(at("limited"));
  const before = await readFile(at("limited"));
  const program = `
    import { isC2CError, loadModel } from ${JSON.stringify(new URL("../dist/index.js", import.meta.url).href)};
    const model = await loadModel(${JSON.stringify(source("receiver"))});
    const cache = await model.prefill(model.tokens(Array.from({ length: 400 }, (_, i) => i % 50)));
    try { await cache.save(${JSON.stringify(at("limited"))}); console.log("saved"); }
    catch (error) { console.log(error.code, error.details.system, isC2CError(error, "IO_FAILED")); }
  `;
  const { stdout, stderr } = spawnSync(
    "bash",
    ["-c", 'ulimit -f 64 && exec "$0" --input-type=module', process.execPath],
    { input: program, encoding: "utf8" },
  );
  assert.is(stdout, "IO_FAILED EFBIG true\n", stderr);
  assert.ok(before.equals(await readFile(at("limited"))));
  assert.equal(await hidden(), []);
});

test("a cache goes on while it is saved", async () => {
  const cache = await prefilled(receiver);
  const before = rowsOf(cache);
  const saving = cache.save(at("meanwhile"));
  cache.write(0, "key", 0, new Float32Array(cache.shape.kvHeads * cache.shape.headDim));
  await receiver.prefill(receiver.tokens([1, 2, 3]), { into: cache });
  await saving;
  assert.is(difference(rowsOf(keep(await loadCache(at("meanwhile"), receiver))), before), 0);
});

test("aborts and disposed handles", async () => {
  const cache = await prefilled(receiver);
  await cache.save(at("old"));
  const before = await readFile(at("old"));
  const reason = new Error("enough");
  await receiver.prefill(receiver.tokens([1]), { into: cache });
  for (const signal of [AbortSignal.abort(reason), later(reason)]) {
    const said = await cache.save(at("old"), { signal }).catch((error) => error);
    if (said instanceof Error) {
      assert.is(said, reason);
      assert.ok(before.equals(await readFile(at("old"))));
    }
  }
  assert.is(await loadCache(at("old"), receiver, { signal: AbortSignal.abort(reason) }).catch((e) => e), reason);
  assert.equal(await hidden(), []);
  cache.dispose();
  await fails(cache.save(at("old")), "DISPOSED");
});

function later(reason) {
  const controller = new AbortController();
  setImmediate(() => controller.abort(reason));
  return controller.signal;
}

test.run();
