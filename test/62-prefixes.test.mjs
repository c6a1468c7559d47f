// Prefixes of plain caches: reuse by prefill, and a store of them under a budget.
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createPrefixStore, loadModel } from "../dist/index.js";
import { liveHandles } from "../dist/testing.js";
import { keeping } from "./support/handles.mjs";
import { fails } from "./support.mjs";

const folder = (name) => ({ kind: "folder", path: fileURLToPath(new URL(`../models/pair/${name}`, import.meta.url)) });
let model;
let other;
test.before(async () => {
  model = await loadModel(folder("receiver"), { dtype: "float32" });
  other = await loadModel(folder("sharer"), { dtype: "float32" });
});
const { keep, check, free } = keeping(test);
test.after(async () => {
  await model.dispose();
  await other.dispose();
});

const ids = (length, seed = 3) => Array.from({ length }, (_, i) => (i * 7919 + seed * 31) % 1000);
const prefill = (list, options) => model.prefill(model.tokens(list), options);
const difference = (a, b) => a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);

check("prefill from a cache: the rows in common, tokens and positions, and the logits of a fresh run", async () => {
  // Few tokens, so that runs in common are as likely as none.
  const tokens = fc.array(fc.integer({ min: 5, max: 6 }), { minLength: 1, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(tokens, tokens, fc.constantFrom(0, 0, 3), async (before, after, offset) => {
      const from = keep(await prefill(before, { positions: Uint32Array.from(before, (_, i) => i + offset) }));
      const read = after.slice(0, -1);
      const cache = keep(await prefill(read, { from }));
      let common = 0;
      while (offset === 0 && common < Math.min(before.length, read.length) && before[common] === read[common]) common++;
      assert.is(cache.reused, common);
      assert.is(from.length, before.length);
      assert.equal([...cache.positions], [...read.keys()]);
      const fresh = keep(await prefill(read));
      const last = model.tokens(after.slice(-1));
      const logits = await model.logits(cache, last);
      assert.ok(difference(logits, await model.logits(fresh, last)) < 1e-4);
      free();
    }),
    { numRuns: 40 },
  );
});

check("prefill from a cache that has it all: the last token can be read again", async () => {
  const list = ids(9);
  const from = keep(await prefill(list));
  const whole = keep(await prefill(list, { from }));
  assert.is(whole.reused, 9);
  assert.is(whole.length, 9);
  const before = keep(await prefill(list.slice(0, -1), { from }));
  assert.is(before.reused, 8);
  const text = await model.generate(before, model.tokens(list.slice(-1)), { maxNewTokens: 3, eos: [] }).text();
  const fresh = keep(await prefill(list.slice(0, -1)));
  assert.is(text, await model.generate(fresh, model.tokens(list.slice(-1)), { maxNewTokens: 3, eos: [] }).text());
});

check("prefill from what does not fit", async () => {
  const foreign = keep(await other.prefill(other.tokens([1, 2, 3])));
  await fails(prefill([1, 2, 3], { from: foreign }), "CACHE_FOREIGN");
  const from = keep(await prefill([1, 2, 3]));
  await fails(prefill([1, 2], { from, into: from }), "OPTION_INVALID", /from/);
  await fails(prefill([1, 2], { from, positions: Uint32Array.of(0) }), "OPTION_INVALID", /positions/);
  const endless = keep(model.cache({ capacity: 8, policy: { kind: "sinks" } }));
  await fails(prefill([1, 2], { from: endless }), "OPTION_INVALID", /policy/);
  const stopped = AbortSignal.abort(new Error("enough"));
  assert.is(await prefill([1, 2], { from, signal: stopped }).catch(({ message }) => message), "enough");
  from.dispose();
  await fails(prefill([1, 2], { from }), "DISPOSED");
});

/** Looks up, disposes of what was found, and says how much that was and why. */
function found(store, list, positions) {
  const { cache, reused, reason } = store.find(model, model.tokens(list), positions);
  assert.is(cache?.length ?? 0, reused);
  assert.is(cache?.reused ?? 0, reused);
  cache?.dispose();
  return { reused, ...reason };
}

check("a store says what it found, and why no more", async () => {
  const store = keep(createPrefixStore());
  assert.is(store.limit, 512 * 2 ** 20);
  assert.equal(found(store, [1, 2]), { reused: 0, kind: "empty" });
  const foreign = keep(await other.prefill(other.tokens([1, 2, 3])));
  assert.ok(store.put(foreign));
  assert.equal(found(store, [1, 2]), { reused: 0, kind: "other model", models: [other.id] });
  const cache = keep(await prefill([1, 2, 3]));
  assert.ok(store.put(cache));
  assert.equal(found(store, [1, 2]), { reused: 2, kind: "whole" });
  assert.equal(found(store, [1, 2, 3, 4]), { reused: 3, kind: "ended", at: 3 });
  assert.equal(found(store, [1, 9]), { reused: 1, kind: "token differs", at: 1, asked: 9, kept: 2 });
  assert.equal(found(store, [9]), { reused: 0, kind: "token differs", at: 0, asked: 9, kept: 1 });
  const moved = Uint32Array.of(0, 5);
  assert.equal(found(store, [1, 2], moved), { reused: 1, kind: "position differs", at: 1, asked: 5, kept: 1 });
  store.clear();
  assert.equal(found(store, [1, 2]), { reused: 0, kind: "empty" });
});

check("what a store gives is a fork, and what it was given goes its own way", async () => {
  const store = keep(createPrefixStore());
  const list = ids(100);
  const cache = await prefill(list);
  store.put(cache);
  cache.write(0, "value", 0, new Float32Array(100 * 3 * 24));
  cache.dispose();
  const one = keep(store.find(model, model.tokens([...list, 1])).cache);
  one.write(1, "key", 0, new Float32Array(100 * 3 * 24));
  await model.prefill(model.tokens([7, 8]), { into: one });
  const two = keep(store.find(model, model.tokens([...list, 2])).cache);
  const fresh = keep(await prefill(list));
  for (const layer of [0, 1]) {
    for (const part of ["key", "value"])
      assert.ok(difference(two.read(layer, part), fresh.read(layer, part)) < 1e-5, part);
  }
});

check("a cache that may not grow goes in; one with a policy, empty or in use does not", async () => {
  const store = keep(createPrefixStore());
  const fixed = keep(model.cache({ capacity: 3, grow: false }));
  await model.prefill(model.tokens([1, 2, 3]), { into: fixed });
  assert.ok(store.put(fixed));
  const cache = keep(store.find(model, model.tokens([1, 2, 3, 4])).cache);
  await model.prefill(model.tokens([4]), { into: cache });
  const empty = keep(model.cache());
  assert.not(store.put(empty));
  const endless = keep(model.cache({ capacity: 8, policy: { kind: "sinks" } }));
  await fails((async () => store.put(endless))(), "OPTION_INVALID", /policy/);
  const work = model.prefill(model.tokens([5]), { into: cache });
  await fails((async () => store.put(cache))(), "CACHE_BUSY");
  await work;
  await fails((async () => store.find(model, model.tokens([])))(), "OPTION_INVALID");
});

check("entries that are continued leave; memory in common counts once", async () => {
  const store = keep(createPrefixStore());
  const list = ids(512);
  let cache = await prefill(list);
  const alone = cache.bytes;
  store.put(cache);
  for (let turn = 1; turn <= 4; turn++) {
    list.push(...ids(8, turn));
    const next = await prefill(list, { from: cache });
    cache.dispose();
    cache = next;
    store.put(cache);
    assert.is(store.entries.length, 1);
    assert.is(store.entries[0].length, list.length);
  }
  // A branch shares all but its own rows.
  const branch = await prefill([...list.slice(0, 520), 9], { from: cache });
  store.put(branch);
  branch.dispose();
  cache.dispose();
  assert.is(store.entries.length, 2);
  assert.ok(store.bytes < 1.5 * alone, `${store.bytes} of ${alone}`);
  assert.is(
    store.bytes,
    store.entries.reduce((sum, { bytes }) => sum + bytes, 0),
  );
  // An older part changes nothing.
  const part = await prefill(list.slice(0, 100));
  assert.ok(store.put(part));
  part.dispose();
  assert.is(store.entries.length, 2);
});

check("the least recently used goes first, and the budget holds", async () => {
  const rows = 64;
  const one = model.cache({ capacity: rows });
  const { bytes } = one;
  one.dispose();
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 7 }), { minLength: 1, maxLength: 24 }), async (uses) => {
      const store = keep(createPrefixStore({ bytes: 3 * bytes }));
      // A naive model: the order of use, three at most.
      let recent = [];
      for (const key of uses) {
        const list = ids(rows, key + 1);
        const hit = recent.includes(key);
        const was = found(store, list);
        assert.is(was.reused, hit ? rows : 0);
        if (!hit) {
          const cache = await prefill(list);
          store.put(cache);
          cache.dispose();
        }
        recent = [...recent.filter((other) => other !== key), key].slice(-3);
        found(store, list);
        assert.ok(store.bytes <= store.limit);
        assert.equal(
          store.entries.map(({ length }) => length),
          recent.map(() => rows),
        );
      }
      free();
    }),
    { numRuns: 10 },
  );
});

check("evicted, and too large for the whole budget", async () => {
  const cache = await prefill(ids(64));
  const store = keep(createPrefixStore({ bytes: cache.bytes }));
  assert.ok(store.put(cache));
  const larger = await prefill(ids(65, 2));
  assert.not(store.put(larger));
  larger.dispose();
  assert.is(store.entries.length, 1);
  assert.equal(found(store, ids(80, 2)), { reused: 0, kind: "evicted", rows: 65 });
  const next = await prefill(ids(64, 4));
  cache.dispose();
  store.put(next);
  next.dispose();
  assert.equal(found(store, ids(64)), { reused: 0, kind: "evicted", rows: 64 });
  assert.equal(found(store, ids(64, 4)), { reused: 64, kind: "whole" });
});

check("a disposed model's entries vanish, and a disposed store says so", async () => {
  const mine = await loadModel(folder("receiver"));
  const store = createPrefixStore();
  for (const owner of [mine, model]) {
    const cache = await owner.prefill(owner.tokens([1, 2, 3]));
    store.put(cache);
    cache.dispose();
  }
  assert.is(liveHandles().cache, 2);
  await mine.dispose();
  assert.is(liveHandles().cache, 1);
  assert.equal(
    store.entries.map((entry) => entry.model),
    [model],
  );
  store.dispose();
  store.dispose();
  assert.ok(store.disposed);
  assert.is(liveHandles().cache, 0);
  await fails((async () => store.find(model, model.tokens([1])))(), "DISPOSED", /store/);
  await fails((async () => store.clear())(), "DISPOSED", /store/);
});

check("hundreds of entries of thousands of tokens are searched in milliseconds", async () => {
  const store = keep(createPrefixStore());
  const cache = keep(await prefill(ids(1500)));
  for (let i = 0; i < 200; i++) {
    const fork = keep(cache.slice(0, 1400 - i));
    await model.prefill(model.tokens([1001 + (i % 50), 1001 + Math.floor(i / 50)]), { into: fork });
    assert.ok(store.put(fork));
  }
  assert.is(store.entries.length, 200);
  const started = performance.now();
  for (let i = 0; i < 10; i++) assert.is(found(store, ids(1500)).reused, 1400);
  const ms = (performance.now() - started) / 10;
  assert.ok(ms < 100, `${ms} ms`);
});

test.run();
