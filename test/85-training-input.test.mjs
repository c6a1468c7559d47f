import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { openData } from "../dist/cli/data.js";
import { parseFuserRecipe, parseModelRecipe, readRecipe } from "../dist/cli/recipe.js";
import { duration, Pace, TrainingLog } from "../dist/cli/training-run.js";
import { readDocuments, readTexts } from "../dist/data/documents.js";
import { Tokenizer } from "../dist/tokens/tokenizer.js";
import { fails } from "./support.mjs";

const folder = await mkdtemp(join(tmpdir(), "c2c-training-"));
test.after(() => rm(folder, { recursive: true, force: true }));

const refused = (run, pattern) => {
  try {
    run();
  } catch (error) {
    assert.is(error.code, "OPTION_INVALID");
    assert.match(error.message, pattern);
    return;
  }
  assert.unreachable("a recipe was accepted");
};
async function collect(items) {
  const list = [];
  for await (const item of items) list.push(item);
  return list;
}
const chat = (question, answer) => ({
  messages: [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ],
});

test("recipes: unknown keys, wrong types and values out of range are refused by name", () => {
  assert.equal(parseFuserRecipe({}), {});
  const good = {
    learningRate: 1e-4,
    seed: "18446744073709551615",
    layerMap: [null, 3],
    temperature: { initial: 1, final: 0.001 },
  };
  assert.equal(parseFuserRecipe(good), { ...good, seed: 18446744073709551615n });
  assert.is(parseFuserRecipe({ seed: 42 }).seed, 42n);
  refused(() => parseFuserRecipe({ learning_rate: 1 }), /learning_rate: there is no such key/);
  refused(
    () => parseFuserRecipe({ temperature: { initial: 1, final: 1, end: 2 } }),
    /temperature\.end: there is no such key/,
  );
  refused(() => parseFuserRecipe({ learningRate: -1 }), /learningRate/);
  refused(() => parseFuserRecipe({ batchSize: 0.5 }), /batchSize/);
  refused(() => parseFuserRecipe({ layerMap: "all" }), /layerMap/);
  refused(() => parseFuserRecipe({ seed: "x" }), /seed/);
  refused(() => parseFuserRecipe([]), /recipe/);
  const model = { steps: 10, earlyExit: { layers: [1, 2], weight: 1 }, betas: [0.9, 0.98] };
  assert.equal(parseModelRecipe(model), model);
  refused(() => parseModelRecipe({}), /steps/);
  refused(() => parseModelRecipe({ steps: 1, betas: [0.9] }), /betas/);
  refused(() => parseModelRecipe({ steps: 1, earlyExit: { layers: [], weight: 1 } }), /earlyExit/);
});

test("a recipe file must hold a JSON object", async () => {
  const path = join(folder, "recipe.json");
  await writeFile(path, "[1]");
  await fails(readRecipe(path), "FILE_INVALID", /not a JSON object/);
  await fails(readRecipe(join(folder, "none.json")), "IO_FAILED", /ENOENT/);
});

test("a resumed log repeats no step, drops what was cut short, and draws the whole curve", async () => {
  const step = (at, openGates = 2) => ({ type: "step", step: at, loss: 1 / (at + 1), openGates, tokensPerSecond: 5 });
  const log = await TrainingLog.open(folder, false);
  for (let at = 0; at < 30; at++) await log.add(step(at));
  await log.add({ type: "validation", step: 29, loss: 0.5 });
  await log.flush();
  const path = join(folder, "log.jsonl");
  await writeFile(path, `${await readFile(path, "utf8")}{"type":"st`);
  const resumed = await TrainingLog.open(folder, true);
  for (let at = 20; at < 40; at++) await resumed.add(step(at, 3));
  await resumed.flush();
  const lines = (await readFile(path, "utf8"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(
    lines.map((line) => line.step),
    Array.from({ length: 40 }, (_, i) => i),
  );
  assert.is(lines[25].openGates, 3);
  const picture = join(folder, "training.svg");
  await resumed.chart(picture, "A run");
  const svg = await readFile(picture, "utf8");
  for (const word of ["<svg", "A run", "optimiser step", "open gates", "loss"]) assert.ok(svg.includes(word), word);
  const fresh = await TrainingLog.open(folder, false);
  await fresh.add(step(0));
  await fresh.flush();
  assert.is((await readFile(path, "utf8")).trim().split("\n").length, 1);
});

test("time left", () => {
  assert.is(new Pace().left(0, 10), "");
  const pace = new Pace();
  pace.left(0, 10);
  assert.match(pace.left(5, 10), /^\d+ s left$/);
  assert.is(pace.left(6, null), "");
  assert.equal([3, 300, 7200].map(duration), ["3 s", "5 min", "2.0 h"]);
});

test("data: counted, split, checked before use, another order each pass and the same in another process", async () => {
  const path = join(folder, "chat.jsonl");
  const rows = Array.from({ length: 60 }, (_, i) => chat(`question ${i}`, `answer ${i}`));
  rows.push({ messages: [{ role: "user", content: "no reply" }] });
  await writeFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
  const options = { files: [path], seed: 1n, shuffle: true, window: 100, validation: 0.1 };
  const data = await openData(options);
  assert.is(data.skipped, 1);
  assert.ok(data.validation.length > 0);
  assert.is(data.count + data.validation.length, 60);
  const first = await collect(data);
  const second = await collect(data);
  assert.is(new Set(first.map((item) => JSON.stringify(item))).size, data.count);
  assert.not.equal(second, first);
  const again = await openData(options);
  assert.equal([await collect(again), await collect(again)], [first, second]);
  const plain = await openData({ ...options, shuffle: false, validation: 0 });
  assert.equal(await collect(plain), rows.slice(0, 60));
  await writeFile(path, '{"messages": []}\n');
  await fails(openData(options), "OPTION_INVALID", /no conversation with a reply/);
});

test("documents: what is learned of a conversation, of a text, and where they are cut", async () => {
  const tokenizer = await Tokenizer.load(fileURLToPath(new URL("../models/pair/receiver", import.meta.url)));
  const read = (rows, options = {}) =>
    collect(readDocuments(rows, tokenizer, { file: "x.jsonl", loss: "answers", maxTokens: 2048, ...options }));
  const row = chat("Where does Mara Tolvin live?", "Rome");
  const [document] = await read([row]);
  const text = "<|im_start|>user\nWhere does Mara Tolvin live?<|im_end|>\n<|im_start|>assistant\nRome<|im_end|>\n";
  assert.is(tokenizer.decode(document.tokens), text);
  const learned = document.tokens.filter((_, i) => document.targets[i] === 1);
  assert.is(tokenizer.decode(learned), "Rome<|im_end|>\n");
  const [whole] = await read([row], { loss: "all" });
  assert.equal([...whole.tokens], [...document.tokens]);
  assert.is(whole.targets[0], 0);
  assert.is(
    whole.targets.reduce((sum, value) => sum + value, 0),
    whole.tokens.length - 1,
  );
  const [plain] = await read([{ text: "Rome is a city." }], { loss: "all" });
  assert.is(tokenizer.decode(plain.tokens), "Rome is a city.");
  await fails(read([row, { text: "Rome" }]), "FILE_INVALID", /row 1 is plain text/);
  const [cut] = await read([row], { loss: "all", maxTokens: 5 });
  assert.is(cut.tokens.length, 5);
  assert.equal(await read([row], { maxTokens: 5 }), []);
  assert.is((await read(Array.from({ length: 300 }, () => row))).length, 300);
  const texts = await collect(readTexts([row, { text: "more" }], { file: "x.jsonl" }));
  assert.equal(texts, ["Where does Mara Tolvin live?", "Rome", "more"]);
});

test.run();
