import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { pretokens, tokenizerFile, trainBpe, writeTokenizer } from "../dist/bpe/index.js";
import { Tokenizer } from "../dist/tokens/tokenizer.js";
import { fails } from "./support.mjs";

const corpus = [
  "The cat sat on the mat; the cat's hat sat flat on that mat.",
  "Über große Bären: 12345 67, naïve café — 猫は帽子をかぶる。🙂🙂 🙂",
  "aaaaaaa aaaa aaa aa a\n\n  indented\tand spaced  \r\nend",
  "the theory of the thesis; then there, they them these",
];

const folder = await mkdtemp(join(tmpdir(), "c2c-bpe-"));
test.after(() => rm(folder, { recursive: true, force: true }));

/** Counts every pair anew before each merge. */
function naive(texts, { vocab, specials, pattern, minFrequency }) {
  const utf8 = new TextEncoder();
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let hidden = 256;
  const bytes = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : hidden++));
  const tokens = [...specials, ...[...bytes].sort()];
  const words = texts
    .flatMap((text) => [...pretokens(text, pattern)])
    .map((piece) => Array.from(utf8.encode(piece), (byte) => tokens.indexOf(bytes[byte])));
  const merges = [];
  while (tokens.length < vocab) {
    const counts = new Map();
    for (const word of words) {
      for (let i = 1; i < word.length; i++) {
        const pair = `${word[i - 1]},${word[i]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + 1);
      }
    }
    const order = ([a, n], [b, m]) => {
      const [p, q] = [a.split(",").map(Number), b.split(",").map(Number)];
      return m - n || p[0] - q[0] || p[1] - q[1];
    };
    const [best] = [...counts].sort(order);
    if (!best || best[1] < minFrequency) break;
    const [left, right] = best[0].split(",").map(Number);
    const name = tokens[left] + tokens[right];
    if (!tokens.includes(name)) tokens.push(name);
    merges.push([tokens[left], tokens[right]]);
    for (const word of words) {
      for (let i = 1; i < word.length; i++) {
        if (word[i - 1] === left && word[i] === right) word.splice(i - 1, 2, tokens.indexOf(name));
      }
    }
  }
  return { tokens, merges };
}

test("merges are those of a reference that counts anew each time", async () => {
  for (const pattern of ["gpt2", "qwen"]) {
    const options = { vocab: 400, specials: ["<s>"], pattern, minFrequency: 2 };
    const { tokens, merges } = await trainBpe(corpus, options);
    const expected = naive(corpus, options);
    assert.equal(merges, expected.merges, pattern);
    assert.equal(tokens, expected.tokens, pattern);
    assert.ok(merges.length > 20);
  }
});

test("and so they are on random texts", async () => {
  const texts = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c", " ", "é") }), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(
      texts,
      fc.integer({ min: 256, max: 300 }),
      fc.integer({ min: 1, max: 3 }),
      async (list, vocab, least) => {
        const options = { vocab, specials: [], pattern: "gpt2", minFrequency: least };
        const { tokens, merges } = await trainBpe(list, options);
        assert.equal({ tokens, merges }, naive(list, options));
      },
    ),
    { numRuns: 60, seed: 7 },
  );
});

test("the order of the texts does not matter", async () => {
  const there = await trainBpe(corpus, { vocab: 380 });
  const back = await trainBpe([...corpus].reverse(), { vocab: 380 });
  assert.equal(JSON.stringify(tokenizerFile(back)), JSON.stringify(tokenizerFile(there)));
});

test("any text comes back from the written files; frequent words are one token", async () => {
  for (const pattern of ["gpt2", "qwen"]) {
    const place = join(folder, pattern);
    await writeTokenizer(place, await trainBpe(corpus, { vocab: 420, pattern }));
    const tokenizer = await Tokenizer.load(place);
    assert.is((await tokenizer.encode(" the")).length, 1);
    assert.is((await tokenizer.encode("<|im_start|>")).length, 1);
    const texts = fc.array(fc.string({ unit: "grapheme", maxLength: 30 }), { minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(texts, async (list) => {
        const encoded = await tokenizer.encodeAll(list);
        assert.equal(
          encoded.map((ids) => tokenizer.decode(ids)),
          list,
        );
      }),
      { numRuns: 40, seed: 3 },
    );
  }
});

test("a chat is rendered as ChatML and ends at the end of a turn", async () => {
  const place = join(folder, "chat");
  await writeTokenizer(place, await trainBpe(corpus, { vocab: 300 }), 512);
  const tokenizer = await Tokenizer.load(place);
  assert.is(tokenizer.specials.eos, tokenizer.idOf("<|im_end|>"));
  assert.is(tokenizer.specials.pad, 0);
  const text = tokenizer.render([{ role: "user", content: "the cat" }], { generationPrompt: true });
  assert.is(text, "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n");
  const config = JSON.parse(await readFile(join(place, "tokenizer_config.json"), "utf8"));
  assert.is(config.model_max_length, 512);
});

test("special tokens in training texts are cut out", async () => {
  const { tokens } = await trainBpe(["ab<x>ab<x>ab<x>"], { vocab: 300, specials: ["<x>"] });
  assert.equal(tokens.slice(257), ["ab"]);
});

test("options are checked", async () => {
  await fails(trainBpe([], { vocab: 10 }), "OPTION_INVALID", /vocab/);
  await fails(trainBpe([], { vocab: 300, specials: ["a", "a"] }), "OPTION_INVALID", /specials/);
  await fails(trainBpe([], { vocab: 300, minFrequency: 0 }), "OPTION_INVALID", /minFrequency/);
});

test.run();
