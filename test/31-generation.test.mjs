import { getEventListeners } from "node:events";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isC2CError, loadModel } from "../dist/index.js";
import { liveHandles } from "../dist/testing.js";

const path = fileURLToPath(new URL("../models/pair/receiver", import.meta.url));
let model;
let prompt;
test.before(async () => {
  model = await loadModel({ kind: "folder", path }, { dtype: "float32" });
  prompt = (await model.encode("Which fruit does Livia Ridley prefer?")).tokens;
});
test.after(() => model.dispose());

const kept = [];
/** Disposes of a cache after the test. */
function keep(cache) {
  kept.push(cache);
  return cache;
}
test.after.each(() => {
  for (const cache of kept.splice(0)) cache.dispose();
});

/** All events of a generation on a fresh cache. */
async function events(options) {
  const cache = keep(model.cache());
  const all = [];
  for await (const event of model.generate(cache, prompt, options)) all.push(event);
  return all;
}

const free = { maxNewTokens: 24, eos: [] };

test("tokens' texts join to the text, and the cache holds all but the last", async () => {
  const cache = keep(model.cache());
  const all = [];
  for await (const event of model.generate(cache, prompt, { ...free, logits: true })) all.push(event);
  const done = all.pop();
  assert.is(done.type, "done");
  assert.equal(done.reason, { kind: "length" });
  assert.equal(
    all.map(({ index }) => index),
    Array.from({ length: 24 }, (_, i) => i),
  );
  assert.is(all.map(({ text }) => text).join(""), done.text);
  assert.is(cache.length, prompt.length + 23);
  for (const { id, logits } of all) {
    assert.is(logits.length, model.shape.vocab);
    assert.is(logits.indexOf(Math.max(...logits)), id);
  }
  assert.is(done.timings.newTokens, 24);
  assert.is(done.timings.promptTokens, prompt.length);
  assert.ok(done.timings.firstTokenMs > 0 && done.timings.decodeMs > 0);
});

test("an end token is not an event of its own", async () => {
  const plain = await events(free);
  const end = plain[2].id;
  const all = await events({ ...free, eos: [end] });
  const done = all.pop();
  assert.equal(done.reason, { kind: "eos", token: end });
  assert.ok(all.every(({ id }) => id !== end));
  assert.is(all.map(({ text }) => text).join(""), done.text);
});

test("stop strings across token borders", async () => {
  const { text } = (await events(free)).at(-1);
  const stop = text.slice(3, 9);
  const at = text.indexOf(stop);
  const all = await events({ ...free, stop: [stop, "never there"] });
  const done = all.pop();
  assert.equal(done.reason, { kind: "stop", match: stop });
  assert.is(done.text, text.slice(0, at));
  assert.is(all.map((event) => event.text).join(""), done.text);
  const near = await events({ ...free, stop: [`${text.slice(-2)}#`] });
  assert.is(near.at(-1).text, text);
  assert.is(
    near
      .slice(0, -1)
      .map((event) => event.text)
      .join(""),
    text,
  );
});

test("nothing runs until it is asked for, and return() frees the cache", async () => {
  const cache = keep(model.cache());
  const generation = model.generate(cache, prompt, free);
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.is(cache.length, 0);
  const iterator = generation[Symbol.asyncIterator]();
  await iterator.next();
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.is(cache.length, prompt.length);
  await iterator.return();
  assert.equal(await iterator.next(), { done: true, value: undefined });
  await generation.text().then(
    () => assert.unreachable(),
    (error) => assert.ok(isC2CError(error, "DISPOSED")),
  );
  cache.truncate(0);
});

test("one cache takes one generation at a time", async () => {
  const cache = keep(model.cache());
  const first = model.generate(cache, prompt, free);
  await first[Symbol.asyncIterator]().next();
  const second = model.generate(cache, prompt, free);
  await second.text().then(
    () => assert.unreachable(),
    (error) => assert.ok(isC2CError(error, "CACHE_BUSY")),
  );
  await first[Symbol.asyncDispose]();
});

test("an abort rejects with its reason", async () => {
  const cache = keep(model.cache());
  const controller = new AbortController();
  const reason = new Error("enough");
  const seen = [];
  try {
    for await (const event of model.generate(cache, prompt, { ...free, signal: controller.signal })) {
      seen.push(event);
      if (seen.length === 3) controller.abort(reason);
    }
    assert.unreachable();
  } catch (error) {
    assert.is(error, reason);
  }
  assert.is(seen.length, 3);
  cache.truncate(0);
});

test("an abort while a step runs rejects with its reason, and the cache holds whole rows", async () => {
  const cache = keep(model.cache());
  const controller = new AbortController();
  const iterator = model.generate(cache, prompt, { ...free, signal: controller.signal })[Symbol.asyncIterator]();
  for (let i = 0; i < 3; i++) await iterator.next();
  const next = iterator.next();
  const reason = new Error("enough");
  controller.abort(reason);
  // The step may have ended before the abort came: then the event after it is refused.
  const after = next.then(() => iterator.next());
  await after.then(
    () => assert.unreachable(),
    (error) => assert.is(error, reason),
  );
  assert.equal(await iterator.next(), { done: true, value: undefined });
  assert.ok(cache.length <= prompt.length + 3);
  assert.is(cache.tokens.length, cache.length);
});

test("steps share one cancel handle, and nothing stays on the caller's signal", async () => {
  const { signal } = new AbortController();
  const before = liveHandles().cancel;
  await events({ ...free, signal });
  assert.ok(liveHandles().cancel <= before + 1);
  assert.is(getEventListeners(signal, "abort").length, 0);
});

test("several at once, each as if alone", async () => {
  const sampling = (seed) => ({ kind: "sample", temperature: 1.5, topP: 0.9, seed });
  const alone = [];
  for (const seed of [1n, 2n, 3n]) alone.push((await events({ ...free, sampling: sampling(seed) })).at(-1).text);
  const together = await Promise.all([1n, 2n, 3n].map((seed) => events({ ...free, sampling: sampling(seed) })));
  assert.equal(
    together.map((all) => all.at(-1).text),
    alone,
  );
  assert.ok(new Set(alone).size > 1);
});

test("bad options are refused at once", () => {
  const cache = keep(model.cache());
  const bad = [
    { maxNewTokens: 0 },
    { stop: [""] },
    { eos: [model.shape.vocab] },
    { repetitionPenalty: 0 },
    { presencePenalty: Number.NaN },
    { sampling: { kind: "beam" } },
    { sampling: { kind: "sample", temperature: -1 } },
    { sampling: { kind: "sample", temperature: 1, topP: 0 } },
    { sampling: { kind: "sample", temperature: 1, topK: 1.5 } },
    { sampling: { kind: "sample", temperature: 1, minP: 2 } },
    { sampling: { kind: "sample", temperature: 1, seed: -1n } },
  ];
  for (const options of bad) {
    assert.throws(
      () => model.generate(cache, prompt, options),
      (error) => isC2CError(error, "OPTION_INVALID"),
    );
  }
  assert.throws(
    () => model.generate(cache, model.tokens([])),
    (error) => isC2CError(error, "OPTION_INVALID"),
  );
});

test.run();
