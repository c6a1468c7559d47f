// Whatever was done to a cache, its file gives it back; whatever was done to the file, it is noticed.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isC2CError, loadCache, loadModel } from "../dist/index.js";
import { liveHandles } from "../dist/testing.js";

const source = { kind: "folder", path: fileURLToPath(new URL("../models/pair/receiver", import.meta.url)) };
const test = suite("properties of cache files");
let folder = "";
let model;

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-properties-"));
  model = await loadModel(source);
});
test.after(async () => {
  await model.dispose();
  await rm(folder, { recursive: true, force: true });
  assert.is(liveHandles().cache, 0);
});

const tokens = fc.array(fc.nat({ max: 300 }), { minLength: 1, maxLength: 70 });
const share = fc.double({ min: 0, max: 1, noNaN: true });
/** What may be done to a cache; numbers are shares of its length. */
const step = fc.oneof(
  fc.record({ kind: fc.constant("prefill"), tokens }),
  fc.record({ kind: fc.constantFrom("erase", "slice"), from: share, to: share }),
  fc.record({ kind: fc.constant("truncate"), to: share }),
  fc.record({ kind: fc.constant("shift"), by: fc.nat({ max: 9 }) }),
  fc.record({ kind: fc.constant("quantize"), form: fc.constantFrom("int8", "int4") }),
  fc.record({ kind: fc.constant("write"), at: share, value: fc.float({ min: -8, max: 8, noNaN: true }) }),
  fc.constant({ kind: "double" }),
  fc.constant({ kind: "fork" }),
  fc.constant({ kind: "reload" }),
);

/** Does one step and returns the cache that goes on; `all` are disposed of later. */
async function take(cache, todo, all) {
  const at = (part) => Math.floor(part * cache.length);
  const [low, high] = [todo.from ?? 0, todo.to ?? 0].sort((a, b) => a - b);
  const keep = (made) => {
    all.push(made);
    return made;
  };
  switch (todo.kind) {
    case "prefill":
      await model.prefill(model.tokens(todo.tokens), { into: cache });
      return cache;
    case "erase":
      cache.erase(at(low), at(high));
      return cache;
    case "truncate":
      cache.truncate(at(todo.to));
      return cache;
    case "shift":
      cache.shift(todo.by);
      return cache;
    case "write": {
      if (cache.length === 0) return cache;
      const row = new Float32Array(cache.shape.kvHeads * cache.shape.headDim).fill(todo.value);
      cache.write(1, "key", Math.min(at(todo.at), cache.length - 1), row);
      return cache;
    }
    case "double":
      if (cache.length < 200) cache.append(keep(cache.fork()));
      return cache;
    case "slice":
      return keep(cache.slice(at(low), at(high)));
    case "quantize":
      return keep((await cache.quantize(todo.form)).cache);
    case "fork":
      return keep(cache.fork());
    default: {
      const path = join(folder, "between");
      await cache.save(path);
      return keep(await loadCache(path, model));
    }
  }
}

function same(a, b) {
  assert.equal([...a.tokens], [...b.tokens]);
  assert.equal([...a.positions], [...b.positions]);
  for (let layer = 0; layer < a.shape.layers; layer++) {
    for (const part of ["key", "value"]) {
      assert.ok(Buffer.from(a.read(layer, part).buffer).equals(Buffer.from(b.read(layer, part).buffer)), part);
    }
  }
}

test("saved and loaded, a cache is what it was, bit for bit", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
      const all = [await model.prefill(model.tokens([1, 2, 3, 4]))];
      try {
        let cache = all[0];
        for (const todo of steps) cache = await take(cache, todo, all);
        const path = join(folder, "cache");
        await cache.save(path);
        const loaded = await loadCache(path, model);
        all.push(loaded);
        same(loaded, cache);
      } finally {
        for (const cache of all) cache.dispose();
      }
    }),
    { numRuns: 40 },
  );
});

for (const form of [undefined, "int8", "int4"]) {
  test(`any change to ${form ?? "a plain"} file is noticed`, async () => {
    const cache = await model.prefill(model.tokens(Array.from({ length: 40 }, (_, i) => i)));
    const path = join(folder, "whole");
    await cache.save(path, form === undefined ? {} : { quantize: form });
    cache.dispose();
    const whole = await readFile(path);
    const changed = join(folder, "changed");
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: whole.length - 1 }), fc.integer({ min: 1, max: 255 }), async (at, bits) => {
        const bytes = Buffer.from(whole);
        bytes[at] ^= bits;
        await writeFile(changed, bytes);
        const error = await loadCache(changed, model).catch((reason) => reason);
        assert.ok(isC2CError(error, "FILE_INVALID"), String(error));
      }),
      { numRuns: 150 },
    );
  });
}

test.run();
