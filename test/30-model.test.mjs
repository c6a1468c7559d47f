import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readGoldens } from "../dist/conformance/golden.js";
import { isC2CError, loadModel } from "../dist/index.js";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const goldens = here("goldens");
const cases = JSON.parse(readFileSync(join(goldens, "cases.json"), "utf8"));
const names = ["receiver", "qwen2", "llama", "gemma3"];
const models = {};

const kept = [];
/** Disposes of a cache after the test. */
function keep(cache) {
  kept.push(cache);
  return cache;
}
test.after.each(() => {
  for (const cache of kept.splice(0)) cache.dispose();
});

/** The error that `f` throws or rejects with; it must have this code. */
async function fails(code, f) {
  try {
    await f();
  } catch (error) {
    assert.ok(isC2CError(error, code), `${code} expected, got ${error}`);
    return error;
  }
  assert.unreachable(`${code} expected`);
}

/** The largest difference between two rows of numbers. */
function difference(a, b) {
  assert.is(a.length, b.length);
  return a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);
}

test.before(async () => {
  for (const name of names) {
    models[name] = await loadModel({ kind: "folder", path: join(goldens, "models", name) }, { dtype: "float32" });
  }
});
test.after(async () => {
  for (const model of Object.values(models)) await model.dispose();
});

for (const name of names) {
  test(`${name}: logits and keys as recorded, whole and in pieces`, async () => {
    const given = cases.find((one) => one.kind === "solo" && one.model === name);
    const recorded = await readGoldens(join(goldens, `case_${given.name}.safetensors`));
    const model = models[name];
    const tokens = model.tokens(given.input_ids);
    const cache = keep(model.cache());
    const logits = await model.logits(cache, tokens);
    const expected = recorded.get("logits_last8") ?? recorded.get("logits");
    assert.ok(difference(logits.slice(-expected.data.length), expected.data) < 1e-4);
    assert.is(cache.length, tokens.length);
    const pieces = keep(await model.prefill(model.tokens(given.input_ids.slice(0, 7))));
    const rest = await model.logits(pieces, model.tokens(given.input_ids.slice(7)));
    assert.ok(difference(rest.slice(-model.shape.vocab), logits.slice(-model.shape.vocab)) < 1e-4);
  });
}

test("a prefix is reused", async () => {
  const model = models.receiver;
  const first = keep(await model.prefill(model.tokens([1, 2, 3, 4, 5])));
  const second = keep(await model.prefill(model.tokens([1, 2, 3, 9]), { from: first }));
  assert.is(second.reused, 3);
  assert.equal([...second.tokens], [1, 2, 3, 9]);
  assert.equal([...second.positions], [0, 1, 2, 3]);
  assert.is(first.length, 5);
  const plain = keep(await model.prefill(model.tokens([1, 2, 3, 9])));
  assert.ok(difference(second.read(1, "key"), plain.read(1, "key")) < 1e-5);
});

test("a fork is its own cache; rows are read and written", async () => {
  const model = models.receiver;
  const cache = keep(await model.prefill(model.tokens([1, 2, 3])));
  const fork = keep(cache.fork());
  const { kvHeads, headDim } = model.shape;
  const row = new Float32Array(kvHeads * headDim).fill(0.5);
  fork.write(0, "value", 1, row);
  assert.equal(fork.read(0, "value", { start: 1, end: 2 }), row);
  assert.not.equal(cache.read(0, "value", { start: 1, end: 2 }), row);
  fork.truncate(1);
  assert.is(fork.length, 1);
  assert.is(cache.length, 3);
  await fails("OPTION_INVALID", () => cache.read(99, "key"));
  await fails("OPTION_INVALID", () => cache.write(0, "key", 3, row));
  await fails("OPTION_INVALID", () => cache.truncate(4));
});

test("tokens remember their vocabulary", async () => {
  const { receiver, llama } = models;
  const { tokens } = await llama.encode("hello");
  const error = await fails("TOKENS_FOREIGN", () => receiver.prefill(tokens));
  assert.is.not(error.details.expected, error.details.actual);
  await fails("OPTION_INVALID", () => receiver.tokens([receiver.shape.vocab]));
  await fails("OPTION_INVALID", () => receiver.tokens([-1]));
  await fails("OPTION_INVALID", () => receiver.prefill(Uint32Array.of(receiver.shape.vocab)));
  (await receiver.prefill(Uint32Array.of(1, 2))).dispose();
});

test("full, busy and foreign caches", async () => {
  const { receiver, qwen2 } = models;
  const fixed = keep(receiver.cache({ capacity: 2, grow: false }));
  await fails("CACHE_FULL", () => receiver.prefill(receiver.tokens([1, 2, 3]), { into: fixed }));
  assert.is(fixed.length, 0);
  const positions = Uint32Array.of(receiver.shape.context);
  const full = await fails("CACHE_FULL", () => receiver.prefill(receiver.tokens([1]), { positions }));
  assert.is(full.details.capacity, receiver.shape.context);
  const cache = keep(receiver.cache());
  const running = receiver.prefill(receiver.tokens([1, 2, 3]), { into: cache });
  await fails("CACHE_BUSY", () => receiver.prefill(receiver.tokens([4]), { into: cache }));
  await fails("CACHE_BUSY", () => cache.truncate(0));
  await running;
  assert.is(cache.length, 3);
  await fails("CACHE_FOREIGN", () => qwen2.prefill(qwen2.tokens([1]), { into: cache }));
});

test("an abort rejects with its reason and leaves the cache as it was", async () => {
  const model = models.receiver;
  const cache = keep(model.cache());
  const reason = new Error("enough");
  const controller = new AbortController();
  const ids = Array.from({ length: 300 }, (_, i) => i % 100);
  const running = model.prefill(model.tokens(ids), { into: cache, signal: controller.signal });
  controller.abort(reason);
  await running.then(
    () => assert.unreachable(),
    (error) => assert.is(error, reason),
  );
  assert.is(cache.length, 0);
});

test("disposed handles", async () => {
  const model = await loadModel({ kind: "folder", path: join(goldens, "models", "receiver") });
  const cache = model.cache();
  cache.dispose();
  cache.dispose();
  assert.ok(cache.disposed);
  assert.is((await fails("DISPOSED", () => cache.length)).details.handle, "cache");
  await fails("DISPOSED", () => model.prefill(model.tokens([1]), { into: cache }));
  const tokens = model.tokens(Array.from({ length: 200 }, (_, i) => i));
  const running = model.prefill(tokens);
  await model.dispose();
  (await running).dispose();
  assert.ok(model.disposed);
  assert.is((await fails("DISPOSED", () => model.prefill(tokens))).details.handle, "model");
  await fails("DISPOSED", () => model.cache());
});

test("what is not there is refused", async () => {
  const source = { kind: "folder", path: join(goldens, "models", "receiver") };
  await fails("UNSUPPORTED", () => loadModel(source, { quantize: "int3" }));
  await fails("UNSUPPORTED", () => loadModel(source, { dtype: "float16" }));
  await fails("IO_FAILED", () => loadModel({ kind: "folder", path: join(goldens, "nowhere") }));
});

test.run();
