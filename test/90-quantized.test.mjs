// Decoders whose weights have 8 or 4 bits, against the same decoder as it is.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isC2CError, loadFuser, loadModel } from "../dist/index.js";

const pair = (name) => ({ kind: "folder", path: fileURLToPath(new URL(`../models/pair/${name}`, import.meta.url)) });
const questions = readFileSync(new URL("../models/pair/questions.jsonl", import.meta.url), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line));

/** Logits of every row of each text, and the mean negative log-likelihood of the tokens that follow. */
async function read(model, texts) {
  const rows = [];
  let loss = 0;
  let count = 0;
  for (const text of texts) {
    const tokens = await model.encodeText(text);
    const cache = model.cache();
    const logits = await model.logits(cache, tokens);
    cache.dispose();
    rows.push(logits);
    const { vocab } = model.shape;
    for (let i = 0; i + 1 < tokens.length; i++) {
      const row = logits.subarray(i * vocab, (i + 1) * vocab);
      const top = row.reduce((a, b) => Math.max(a, b));
      const mass = row.reduce((sum, x) => sum + Math.exp(x - top), 0);
      loss += Math.log(mass) + top - row[tokens[i + 1]];
      count += 1;
    }
  }
  return { rows, perplexity: Math.exp(loss / count) };
}

/** The root of the mean squared difference over that of the reference. */
function error(actual, expected) {
  let miss = 0;
  let size = 0;
  for (const [n, row] of expected.entries()) {
    for (const [i, x] of row.entries()) {
      miss += (actual[n][i] - x) ** 2;
      size += x ** 2;
    }
  }
  return Math.sqrt(miss / size);
}

const texts = questions.slice(0, 24).map((q) => `${q.question ?? q.prompt} ${q.answer}`);
const plain = await loadModel(pair("receiver"));
const reference = await read(plain, texts);

for (const [quantize, most, worse, share] of [
  ["int8", 0.02, 1.05, 0.4],
  ["int4", 0.25, 1.6, 0.3],
]) {
  for (const dtype of ["float32", "bfloat16"]) {
    test(`${quantize} weights with ${dtype} caches stay near the model`, async () => {
      const model = await loadModel(pair("receiver"), { quantize, dtype });
      assert.is(model.dtype, dtype);
      const { rows, perplexity } = await read(model, texts);
      const off = error(rows, reference.rows);
      assert.ok(off < most, `logits are ${off} off`);
      const ratio = perplexity / reference.perplexity;
      assert.ok(ratio < worse, `the perplexity is ${ratio} times the model's`);
      assert.ok(model.bytes < share * plain.bytes, `${model.bytes} of ${plain.bytes} bytes`);
      if (process.env.C2C_VERBOSE) console.log(quantize, dtype, { off, ratio, share: model.bytes / plain.bytes });
      await model.dispose();
    });
  }
}

test("a quantised model generates, and steps give the logits of one reading", async () => {
  const model = await loadModel(pair("receiver"), { quantize: "int8" });
  const tokens = await model.encodeText(texts[0]);
  const whole = model.cache();
  const all = await model.logits(whole, tokens);
  const cache = await model.prefill(model.tokens(tokens.slice(0, -1)));
  const last = await model.logits(cache, model.tokens(tokens.slice(-1)));
  const expected = all.subarray(all.length - model.shape.vocab);
  const size = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  for (const [i, x] of last.entries()) assert.ok(Math.abs(x - expected[i]) < 0.02 * size);
  const text = await model.generate(cache, model.tokens([5]), { maxNewTokens: 4, eos: [] }).text();
  assert.type(text, "string");
  for (const used of [whole, cache]) used.dispose();
  await model.dispose();
});

test("what cannot be quantised is refused", async () => {
  for (const work of [
    () => loadModel(pair("receiver"), { quantize: "int2" }),
    async () => {
      const sharer = await loadModel(pair("sharer"));
      try {
        await loadFuser(pair("fuser"), { receiver: plain, sharer }, { quantize: "int8" });
      } finally {
        await sharer.dispose();
      }
    },
  ]) {
    try {
      await work();
    } catch (failure) {
      assert.ok(isC2CError(failure, "UNSUPPORTED"), String(failure));
      continue;
    }
    assert.unreachable("UNSUPPORTED expected");
  }
});

test.after(() => plain.dispose());
test.run();
