import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readRows } from "../dist/data/rows.js";
import { detectFormat, readSamples } from "../dist/data/samples.js";
import { isHeldOut, shuffled, validationSplit } from "../dist/data/shuffle.js";
import { fails } from "./support.mjs";

const folder = await mkdtemp(join(tmpdir(), "c2c-samples-"));
test.after(() => rm(folder, { recursive: true, force: true }));

async function collect(items) {
  const list = [];
  for await (const item of items) list.push(item);
  return list;
}
const read = (rows, options = {}) => collect(readSamples(rows, { file: "data.jsonl", ...options }));
const user = (content) => ({ role: "user", content });
const assistant = (content) => ({ role: "assistant", content });

test("chat messages, cut behind the last reply", async () => {
  const messages = [{ role: "system", content: "s" }, user("a"), assistant("b"), user("c")];
  assert.equal(await read([{ messages }]), [{ messages: messages.slice(0, 3) }]);
  assert.equal(await read([{ conversation: [user("a"), assistant("b")] }]), [
    { messages: [user("a"), assistant("b")] },
  ]);
  const left = [];
  assert.equal(await read([{ messages: [user("a")] }], { skipped: (count) => left.push(count) }), []);
  assert.equal(left, [1]);
});

test("OpenHermes-2.5: system turns are dropped", async () => {
  const conversations = [
    { from: "system", value: "be kind", weight: null },
    { from: "human", value: "hello", weight: 0 },
    { from: "gpt", value: "hi", weight: 1 },
  ];
  assert.equal(await read([{ conversations, source: "x" }]), [{ messages: [user("hello"), assistant("hi")] }]);
});

test("MMLU's auxiliary rows, flat and nested", async () => {
  const row = { question: "2 + 2?", subject: "", choices: ["3", "4", "5", "6"], answer: 1 };
  const expected = [
    user("Question: 2 + 2?\n\nChoices:\nA. 3\nB. 4\nC. 5\nD. 6"),
    assistant("The correct answer is B."),
  ];
  assert.equal(await read([row, row]), [{ messages: expected }, { messages: expected }]);
  assert.equal(await read([{ train: row }]), [{ messages: expected }]);
});

test("OpenBookQA, as on the hub and as first published", async () => {
  const expected = [
    user("Question: The sun is a\n\nChoices:\nA. planet\nB. star"),
    assistant("The correct answer is B."),
  ];
  const hub = { id: "1", question_stem: "The sun is a", choices: { text: ["planet", "star"], label: ["A", "B"] } };
  assert.equal(await read([{ ...hub, answerKey: "B" }]), [{ messages: expected }]);
  const choices = [
    { text: "planet", label: "A" },
    { text: "star", label: "B" },
  ];
  const first = { id: "1", question: { stem: "The sun is a", choices }, answerKey: "B" };
  assert.equal(await read([first]), [{ messages: expected }]);
});

test("layouts are told apart; a row of none of them is refused with its number", async () => {
  assert.is(detectFormat({ messages: [] }), "messages");
  assert.is(detectFormat({ text: "x" }), null);
  await fails(read([{ text: "x" }]), "FILE_INVALID", /row 0 has fields text/);
  const good = { messages: [user("a"), assistant("b")] };
  await fails(read([good, { messages: [{ role: "robot", content: "x" }] }]), "FILE_INVALID", /row 1 .*role.*robot/);
  await fails(read([good, { messages: [{ role: "user" }] }]), "FILE_INVALID", /content is missing/);
  await fails(read([{ question: "q", choices: ["a"], answer: 1 }]), "FILE_INVALID", /answer 1 is no index of 1/);
  const wrong = { question_stem: "q", choices: { text: ["a"], label: ["A"] }, answerKey: "E" };
  await fails(read([wrong]), "FILE_INVALID", /none of A/);
  await fails(read([{ conversations: [{ from: "tool", value: "x" }] }]), "FILE_INVALID", /tool/);
});

test("rows of a file", async () => {
  const path = join(folder, "chat.jsonl");
  await writeFile(path, `${JSON.stringify({ messages: [user("a"), assistant("b")] })}\n\n`);
  assert.equal(await collect(readSamples(readRows(path), { file: path })), [{ messages: [user("a"), assistant("b")] }]);
});

test("rows of parquet files", async () => {
  const rows = await collect(readRows(fileURLToPath(new URL("fixtures/tasks/openbookqa.parquet", import.meta.url))));
  assert.is(detectFormat(rows[0]), "openbookqa");
  const samples = await read(rows);
  assert.is(samples.length, rows.length);
  assert.match(samples[0].messages[1].content, /^The correct answer is [A-D]\.$/);
});

test("shuffling keeps every item, depends on the seed alone, and moves none forward by the window or more", async () => {
  const items = Array.from({ length: 500 }, (_, i) => i);
  const once = await collect(shuffled(items, { seed: 3n, window: 50 }));
  assert.equal(await collect(shuffled(items, { seed: 3n, window: 50 })), once);
  assert.not.equal(await collect(shuffled(items, { seed: 4n, window: 50 })), once);
  assert.equal(
    [...once].sort((a, b) => a - b),
    items,
  );
  assert.ok(once.every((item, at) => item - at < 50));
  const whole = await collect(shuffled(items, { seed: 3n, window: 1000 }));
  assert.ok(whole.slice(0, 50).some((item) => item > 300));
  assert.equal(await collect(shuffled([], { seed: 1n })), []);
  await fails(collect(shuffled(items, { seed: 1n, window: 0 })), "OPTION_INVALID", /window/);
});

test("a validation split is disjoint, seeded, and as large as asked", async () => {
  const items = Array.from({ length: 2000 }, (_, i) => i);
  const open = async function* () {
    yield* items;
  };
  const { train, validation } = await validationSplit(open, { share: 0.05, seed: 1n });
  assert.ok(validation.length > 60 && validation.length < 140, validation.length);
  const rest = await collect(train());
  assert.is(rest.length + validation.length, items.length);
  assert.is(new Set([...rest, ...validation]).size, items.length);
  assert.equal(await collect(train()), rest);
  assert.ok(validation.every((item) => isHeldOut(item, 0.05, 1n)));
  const few = await validationSplit(open, { share: 0.05, seed: 1n, most: 10 });
  assert.equal(few.validation, validation.slice(0, 10));
  assert.is((await collect(few.train())).length, items.length - 10);
  assert.equal((await validationSplit(open, { share: 0, seed: 1n })).validation, []);
  await fails(validationSplit(open, { share: 1, seed: 1n }), "OPTION_INVALID", /validation/);
});

test.run();
