import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { alignChat, alignRuns, alignTokens } from "../dist/align/index.js";
import { alignChatReference } from "../dist/conformance/padded.js";
import { Tokenizer } from "../dist/tokens/index.js";

const goldens = join(dirname(fileURLToPath(import.meta.url)), "goldens");
const cases = JSON.parse(readFileSync(join(goldens, "align.json"), "utf8"));
const tokenizers = {};
test.before(async () => {
  for (const name of ["receiver", "qwen2", "llama", "gemma3"])
    tokenizers[name] = await Tokenizer.load(join(goldens, "models", name));
});

test("goldens: plain sequences", async () => {
  for (const { sharer, strategy, text, sequence } of cases.filter((entry) => entry.sequence)) {
    const ids = await tokenizers.receiver.encode(text);
    assert.equal([...ids], sequence.slm_token_ids);
    const [aligned] = await alignRuns(tokenizers.receiver, tokenizers[sharer], [ids], strategy);
    assert.equal([...aligned.ids], sequence.aligned_llm_token_ids, `${sharer} ${strategy} ${text}`);
    assert.is(aligned.oneToOne, sequence.one_to_one_count);
  }
});

/** The recorded alignment without the reference's names: "slm" is its receiver, "llm" its sharer. */
function renamed(result) {
  const side = (name) => ({
    ids: result[`${name}_ids_padded`],
    pads: result[`${name}_padding_mask`],
    text: result[`${name}_text`],
  });
  const sections = result.sections.map(({ type, slm_range: range, llm_range: other }) => {
    assert.equal(other, range);
    return { type, range };
  });
  return { receiver: side("slm"), sharer: side("llm"), message: result.message_mask, sections };
}

test("goldens: chat messages", async () => {
  for (const { sharer, strategy, messages, add_generation_prompt, remove_last_surfix, result } of cases.filter(
    (entry) => entry.result,
  )) {
    const options = { strategy, addGenerationPrompt: add_generation_prompt, removeLastSuffix: remove_last_surfix };
    const aligned = await alignChatReference(tokenizers.receiver, tokenizers[sharer], messages, options);
    assert.equal(aligned, renamed(result));
  }
});

test("without pads: the goldens' tokens, at the goldens' places", async () => {
  for (const { sharer, strategy, messages, add_generation_prompt, remove_last_surfix, result } of cases.filter(
    (entry) => entry.result,
  )) {
    const options = { generationPrompt: add_generation_prompt, continueLast: remove_last_surfix };
    const sharers = [{ tokenizer: tokenizers[sharer], strategy }];
    const { receiver, sharers: read, sections } = await alignChat(tokenizers.receiver, sharers, messages, options);
    for (const [side, rows] of [
      ["slm", receiver],
      ["llm", read[0]],
    ]) {
      const places = result[`${side}_padding_mask`].flatMap((pad, i) => (pad ? [] : [i]));
      assert.equal([...rows.positions], places);
      assert.equal(
        [...rows.ids],
        places.map((i) => result[`${side}_ids_padded`][i]),
      );
    }
    assert.equal(
      sections.map(({ message }) => (message ? "message" : "template")),
      result.sections.map(({ type }) => type),
    );
  }
});

const messages = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "北京是中国的首都。 Où est Paris? 🚀🎉 naïve" },
];

test("several sharers: message rows pair, templates take the longest reading's positions", async () => {
  const list = [
    { tokenizer: tokenizers.qwen2, strategy: "same" },
    { tokenizer: tokenizers.llama, strategy: "first" },
    { tokenizer: tokenizers.gemma3, strategy: "bytes" },
  ];
  const { receiver, sharers, sections } = await alignChat(tokenizers.receiver, list, messages);
  assert.equal(sharers[0].ids, receiver.ids);
  assert.equal(sharers[0].positions, receiver.positions);
  let position = 0;
  for (const { message, receiver: own, sharers: spans } of sections) {
    const all = [[receiver, own], ...sharers.map((rows, s) => [rows, spans[s]])];
    const lengths = all.map(([, { start, end }]) => end - start);
    for (const [rows, { start, end }] of all) {
      assert.equal(
        [...rows.positions.subarray(start, end)],
        Array.from({ length: end - start }, (_, i) => position + i),
      );
    }
    if (message) assert.is(new Set(lengths).size, 1);
    position += Math.max(...lengths);
  }
  assert.is(sections.filter(({ message }) => message).length, 2);
  assert.is(sections.at(-1).receiver.end, receiver.ids.length);
});

/** What "bytes" promises, by trying every token. */
function bestOverlap(receiver, sharer, ids, reading) {
  const ranges = (tokenizer, list) => {
    const { ends } = tokenizer.spell(list);
    return Array.from(list, (id, i) => ({ id, start: i === 0 ? 0 : ends[i - 1], end: ends[i] }));
  };
  const others = ranges(sharer, reading);
  return ranges(receiver, ids).map(({ start, end }) => {
    const shared = others.map((other) => Math.min(end, other.end) - Math.max(start, other.start));
    return others[shared.indexOf(Math.max(...shared))].id;
  });
}

test("bytes: nothing is lost in CJK and emoji", async () => {
  const { receiver, gemma3, llama } = tokenizers;
  for (const text of ["北京是中国的首都。", "🚀🎉👩‍👩‍👧", "def f(x): 変数 = 'é'", "plain words here"]) {
    const ids = await receiver.encode(text);
    for (const sharer of [gemma3, llama]) {
      const reading = await sharer.encode(text);
      const aligned = await alignTokens(receiver, sharer, ids, "bytes");
      assert.equal([...aligned], bestOverlap(receiver, sharer, ids, reading), text);
    }
  }
  const ids = await receiver.encode("🚀🎉");
  const [bytes] = await alignRuns(receiver, gemma3, [ids], "bytes");
  const [first] = await alignRuns(receiver, gemma3, [ids], "first");
  assert.is(gemma3.decode(bytes.ids), "🚀🎉");
  assert.is(bytes.oneToOne, ids.length);
  assert.is.not(gemma3.decode(first.ids), "🚀🎉");
});

test("any text: every receiver token has one of the sharer's, and with bytes the one that shares most", async () => {
  const { receiver, llama, gemma3 } = tokenizers;
  const text = fc.string({ unit: "grapheme", minLength: 1, maxLength: 24 });
  await fc.assert(
    fc.asyncProperty(text, fc.constantFrom(llama, gemma3), async (input, sharer) => {
      const ids = await receiver.encode(input);
      for (const strategy of ["first", "longest", "bytes"]) {
        const aligned = await alignTokens(receiver, sharer, ids, strategy);
        assert.is(aligned.length, ids.length, strategy);
        assert.ok(
          aligned.every((id) => id < sharer.size),
          strategy,
        );
      }
      const reading = await sharer.encode(input);
      // A sharer that normalises or adds spaces spells another text: there is no common byte to count then.
      if (Buffer.compare(sharer.spell(reading).bytes, receiver.spell(ids).bytes) !== 0) return;
      const aligned = await alignTokens(receiver, sharer, ids, "bytes");
      assert.equal([...aligned], bestOverlap(receiver, sharer, ids, reading));
    }),
    { numRuns: 150 },
  );
});

test("bytes: a sharer that normalises, and runs cut inside a character", async () => {
  const { receiver, llama } = tokenizers;
  const ids = await llama.encode("cafe\u0301 and more");
  assert.is((await alignTokens(llama, receiver, ids, "bytes")).length, ids.length);
  const cut = (await receiver.encode("北京")).subarray(1, 4);
  assert.is((await alignTokens(receiver, llama, cut, "bytes")).length, 3);
  assert.is((await alignTokens(receiver, llama, new Uint32Array(), "bytes")).length, 0);
});

test("the share of one-to-one tokens", async () => {
  const { receiver, qwen2, gemma3 } = tokenizers;
  const chat = [{ role: "user", content: "plain words" }];
  const share = async (tokenizer, strategy) =>
    (await alignChat(receiver, [{ tokenizer, strategy }], chat)).sharers[0].oneToOne;
  for (const strategy of ["same", "first", "longest", "bytes"]) assert.is(await share(qwen2, strategy), 1, strategy);
  for (const strategy of ["same", "first", "longest", "bytes"]) {
    const value = await share(gemma3, strategy);
    assert.ok(value >= 0 && value < 1, `${strategy} ${value}`);
  }
});

test("readings that do not show the same messages are refused", async () => {
  const { receiver, llama } = tokenizers;
  const silent = Object.create(llama, {
    prompt: { value: async () => ({ text: "", ids: new Uint32Array(), spans: [] }) },
  });
  const sharers = [{ tokenizer: silent, strategy: "first" }];
  const error = await alignChat(receiver, sharers, messages).catch((cause) => cause);
  assert.is(error.code, "OPTION_INVALID");
});

test.run();
