// The KV cache as a value: handle, forks, edits, policies, and sequences of them against plain lists.
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isC2CError, loadModel } from "../dist/index.js";
import { liveHandles } from "../dist/testing.js";

const pair = fileURLToPath(new URL("../models/pair", import.meta.url));
let model;
let sharer;
const kept = [];
const keep = (cache) => {
  kept.push(cache);
  return cache;
};

test.before(async () => {
  model = await loadModel({ kind: "folder", path: join(pair, "receiver") });
  sharer = await loadModel({ kind: "folder", path: join(pair, "sharer") });
});
test.after.each(() => {
  for (const cache of kept.splice(0)) cache.dispose();
});
test.after(async () => {
  await model.dispose();
  await sharer.dispose();
  assert.is(liveHandles().cache, 0);
});

function fails(code, f) {
  try {
    f();
  } catch (error) {
    assert.ok(isC2CError(error, code), `${code} expected, got ${error}`);
    return error;
  }
  return assert.unreachable(`${code} expected`);
}

const tokensOf = (count, from = 0) =>
  model.tokens(Uint32Array.from({ length: count }, (_, i) => ((i + from) * 37 + 11) % 1000));
const read = async (tokens, options) => keep(await model.prefill(tokens, options));

/** The largest difference between the rows of two caches, over all layers, keys and values. */
function difference(a, b, layers = model.shape.layers) {
  assert.is(a.length, b.length);
  let most = 0;
  for (let layer = 0; layer < layers; layer++)
    for (const part of ["key", "value"]) {
      const [x, y] = [a.read(layer, part), b.read(layer, part)];
      for (let i = 0; i < x.length; i++) most = Math.max(most, Math.abs(x[i] - y[i]));
    }
  return most;
}

test("a cache says what it is", async () => {
  const cache = await read(tokensOf(10));
  assert.equal(cache.shape, { layers: 4, kvHeads: 3, headDim: 24 });
  assert.is(cache.length, 10);
  assert.ok(cache.capacity >= 10);
  // Keys and values of every layer, four bytes each.
  assert.is(cache.bytes, cache.capacity * 4 * 2 * 3 * 24 * 4);
  assert.is(cache.model, model);
  const copy = cache.fork();
  cache.dispose();
  assert.ok(cache.disposed);
  fails("DISPOSED", () => cache.length);
  fails("DISPOSED", () => cache.erase(0, 1));
  assert.is(keep(copy).length, 10);
});

test("bytes of shared rows count once, and in a fork once the parent is gone", async () => {
  const cache = await read(tokensOf(600));
  const { bytes } = cache;
  const forks = Array.from({ length: 100 }, () => keep(cache.fork()));
  for (const [i, fork] of forks.entries()) await model.prefill(tokensOf(1, i), { into: fork });
  const more = forks.reduce((sum, fork) => sum + fork.bytes, 0);
  assert.is(cache.bytes, bytes);
  assert.ok(more < 0.06 * 100 * bytes, `${more} bytes for a hundred forks of ${bytes}`);
  cache.dispose();
  const all = forks.reduce((sum, fork) => sum + fork.bytes, 0);
  assert.is(all, more + bytes);
});

test("a shifted cache is that of a prefill at those positions", async () => {
  const cache = await read(tokensOf(40));
  const positions = Uint32Array.from({ length: 40 }, (_, i) => i + 100);
  const other = await read(tokensOf(40), { positions });
  const fork = keep(cache.fork());
  cache.shift(100);
  assert.equal(cache.positions, positions);
  assert.ok(difference(cache, other) < 1e-4);
  fork.shift(0);
  assert.is(fork.positions[0], 0);
  assert.is(fails("OPTION_INVALID", () => fork.shift(-1)).details.option, "by");
  fails("CACHE_FULL", () => fork.shift(model.shape.context));
  fails("OPTION_INVALID", () => fork.shift(0.5));
});

test("what is appended stands behind, as a prefill there would have it", async () => {
  const cache = await read(tokensOf(7));
  const part = await read(tokensOf(80, 500));
  cache.append(part);
  assert.equal(
    cache.positions,
    Uint32Array.from({ length: 87 }, (_, i) => i),
  );
  const alone = await read(tokensOf(80, 500), { positions: Uint32Array.from({ length: 80 }, (_, i) => i + 7) });
  assert.ok(difference(keep(cache.slice(7)), alone) < 1e-4);
  assert.equal(part.positions[0], 0);
  fails("CACHE_BUSY", () => cache.append(cache));
  const foreign = keep(sharer.cache());
  fails("CACHE_FOREIGN", () => cache.append(foreign));
});

test("an erased run leaves no gap, and first-layer rows as a prefill without it has them", async () => {
  const whole = tokensOf(50);
  const rest = model.tokens([...whole.slice(0, 10), ...whole.slice(30)]);
  const cache = await read(whole);
  const fork = keep(cache.fork());
  cache.erase(10, 30);
  const fresh = await read(rest);
  assert.equal([...cache.tokens], [...rest]);
  assert.equal(cache.positions, fresh.positions);
  assert.ok(difference(cache, fresh, 1) < 1e-4);
  assert.is(fork.length, 50);
  assert.ok(difference(fork, await read(whole)) < 1e-5);
  cache.erase(5, 5);
  cache.erase(25, 30);
  assert.is(cache.length, 25);
  fails("OPTION_INVALID", () => cache.erase(5, 26));
  fails("OPTION_INVALID", () => cache.erase(6, 5));
});

test("erasing the end loses no context: what is left is a fresh prefill", async () => {
  const cache = await read(tokensOf(50));
  cache.erase(20, 50);
  assert.ok(difference(cache, await read(tokensOf(20))) < 1e-4);
});

test("a slice of a fork of a fork", async () => {
  const cache = await read(tokensOf(200));
  const fork = keep(cache.fork());
  await model.prefill(tokensOf(5, 900), { into: fork });
  const slice = keep(keep(fork.fork()).slice(190, 203));
  assert.equal([...slice.tokens], [...fork.tokens.slice(190, 203)]);
  assert.equal(slice.positions, fork.positions.slice(190, 203));
  assert.is(slice.bytes, 0);
  slice.write(1, "value", 2, new Float32Array(72).fill(3));
  assert.is(slice.read(1, "value", { start: 2, end: 3 })[0], 3);
  assert.is.not(fork.read(1, "value", { start: 192, end: 193 })[0], 3);
  assert.is(keep(cache.slice(4, 4)).length, 0);
  fails("OPTION_INVALID", () => cache.slice(3, 2));
});

test("sequences of forks and edits agree with plain lists", async () => {
  const commands = fc.array(
    fc.record({
      kind: fc.constantFrom("append", "append", "fork", "truncate", "erase", "slice", "join", "write", "drop"),
      which: fc.nat(),
      a: fc.nat(),
      b: fc.nat(),
      count: fc.integer({ min: 1, max: 70 }),
    }),
    { minLength: 5, maxLength: 25 },
  );
  await fc.assert(
    fc.asyncProperty(commands, async (list) => {
      // Beside each cache its tokens, and a number written over the first value of a row (or none).
      let all = [{ cache: model.cache({ capacity: 4 }), rows: [] }];
      let next = 0;
      try {
        for (const { kind, which, a, b, count } of list) {
          const one = all[which % all.length];
          const { cache, rows } = one;
          const start = a % (rows.length + 1);
          const end = start + (b % (rows.length - start + 1));
          if (kind === "append" && rows.length < 300) {
            const tokens = tokensOf(count, next);
            next += count;
            await model.prefill(tokens, { into: cache });
            rows.push(...Array.from(tokens, (token) => ({ token })));
          } else if (kind === "fork") {
            all.push({ cache: cache.fork(), rows: [...rows] });
          } else if (kind === "truncate") {
            cache.truncate(start);
            rows.length = start;
          } else if (kind === "erase") {
            cache.erase(start, end);
            rows.splice(start, end - start);
          } else if (kind === "slice") {
            all.push({ cache: cache.slice(start, end), rows: rows.slice(start, end) });
          } else if (kind === "join") {
            const other = all[count % all.length];
            if (other !== one && rows.length + other.rows.length < 300) {
              cache.append(other.cache);
              rows.push(...other.rows);
            }
          } else if (kind === "write" && start < rows.length) {
            const data = cache.read(2, "value", { start, end: start + 1 });
            data[0] = count;
            cache.write(2, "value", start, data);
            rows[start] = { token: rows[start].token, mark: count };
          } else if (kind === "drop" && all.length > 1) {
            cache.dispose();
            all = all.filter((each) => each !== one);
          }
        }
        for (const { cache, rows } of all) {
          assert.equal(
            [...cache.tokens],
            rows.map(({ token }) => token),
          );
          const values = cache.read(2, "value");
          for (const [i, { mark }] of rows.entries()) if (mark !== undefined) assert.is(values[i * 72], mark);
          const places = cache.positions;
          assert.ok(places.every((place, i) => i === 0 || place > places[i - 1]));
        }
      } finally {
        for (const { cache } of all) cache.dispose();
      }
    }),
    { numRuns: 40 },
  );
});

test("a policy makes room: any length in constant memory", async () => {
  const cache = keep(model.cache({ capacity: 64, policy: { kind: "sinks", sinks: 4, evict: 8 } }));
  const { bytes } = cache;
  const prompt = tokensOf(200);
  await model.prefill(prompt, { into: cache });
  assert.equal([...cache.tokens.slice(0, 4)], [...prompt.slice(0, 4)]);
  assert.equal(cache.tokens.at(-1), prompt.at(-1));
  let tokens = 0;
  for await (const event of model.generate(cache, tokensOf(1), { maxNewTokens: 300, eos: [] }))
    if (event.type === "token") {
      tokens += 1;
      assert.ok(cache.length <= 64);
    }
  assert.is(tokens, 300);
  assert.is(cache.bytes, bytes);
  assert.equal([...cache.tokens.slice(0, 4)], [...prompt.slice(0, 4)]);
  assert.equal(
    cache.positions,
    Uint32Array.from({ length: cache.length }, (_, i) => i),
  );
});

test("a policy's plans, carried out, keep the rows that a list keeps", async () => {
  const pieces = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 12 });
  const numbers = fc.record({ capacity: fc.integer({ min: 8, max: 48 }), sinks: fc.nat(7), evict: fc.nat(20) });
  await fc.assert(
    fc.asyncProperty(numbers, pieces, async ({ capacity, sinks, evict: wish }, list) => {
      const evict = 1 + (wish % (capacity - sinks));
      const cache = model.cache({ capacity, policy: { kind: "sinks", sinks, evict } });
      let rows = [];
      let next = 0;
      const append = (tokens) => {
        const over = rows.length + tokens.length - capacity;
        if (over > 0) {
          const first = Math.min(sinks, rows.length);
          rows = [...rows.slice(0, first), ...rows.slice(first + Math.min(Math.max(over, evict), rows.length - first))];
        }
        rows.push(...tokens);
      };
      try {
        for (const count of list) {
          const tokens = tokensOf(count, next);
          next += count;
          await model.prefill(tokens, { into: cache });
          // What is longer than half of what the cache can take comes in pieces.
          const piece = Math.ceil((capacity - sinks) / 2);
          for (let i = 0; i < count; i += piece) append(tokens.slice(i, i + piece));
          assert.equal([...cache.tokens], rows);
          assert.ok(cache.positions.every((place, i) => place === i));
        }
      } finally {
        cache.dispose();
      }
    }),
    { numRuns: 40 },
  );
});

test("a cache that never fills gives what one without a policy gives", async () => {
  const policy = { kind: "sinks" };
  const one = keep(model.cache({ capacity: 100, policy }));
  const two = keep(model.cache());
  const options = { maxNewTokens: 60, eos: [] };
  const next = tokensOf(20);
  assert.is(await model.generate(one, next, options).text(), await model.generate(two, next, options).text());
});

test("logits of more rows than a policy's cache has", async () => {
  const cache = keep(model.cache({ capacity: 32, policy: { kind: "sinks", evict: 1 } }));
  const whole = await model.logits(cache, tokensOf(100));
  assert.is(whole.length, 100 * model.shape.vocab);
  assert.ok(whole.every(Number.isFinite));
  fails("OPTION_INVALID", () => model.cache({ policy: { kind: "sinks" } }));
  fails("OPTION_INVALID", () => model.cache({ capacity: 32, grow: true, policy: { kind: "sinks" } }));
  fails("OPTION_INVALID", () => model.cache({ capacity: 32, policy: { kind: "recent" } }));
  fails("OPTION_INVALID", () => model.cache({ capacity: 32, policy: { kind: "sinks", first: 4 } }));
  fails("OPTION_INVALID", () => model.cache({ capacity: 32, policy: { kind: "sinks", sinks: 32 } }));
  fails("OPTION_INVALID", () => model.cache({ capacity: 32, policy: { kind: "sinks", evict: 1.5 } }));
  fails("OPTION_INVALID", () => model.cache({ capacity: model.shape.context + 1, policy: { kind: "sinks" } }));
});

test("a cache is free once its generation is done", async () => {
  const cache = keep(model.cache());
  await model.generate(cache, tokensOf(5), { maxNewTokens: 3, eos: [] }).text();
  assert.is(cache.tokens.length, 7);
  for await (const event of model.generate(cache, tokensOf(1), { maxNewTokens: 2, eos: [] }))
    if (event.type === "done") cache.truncate(4);
  assert.is(cache.length, 4);
});

test("a full cache ends its own generation, not those that run beside it", async () => {
  const small = keep(model.cache({ capacity: 12, grow: false }));
  const large = keep(model.cache());
  const options = { maxNewTokens: 30, eos: [] };
  const [first, second] = await Promise.allSettled([
    model.generate(small, tokensOf(10), options).text(),
    model.generate(large, tokensOf(10), options).text(),
  ]);
  assert.is(first.status, "rejected");
  assert.ok(isC2CError(first.reason, "CACHE_FULL"), String(first.reason));
  assert.is(second.status, "fulfilled", String(second.reason));
});

test.run();
