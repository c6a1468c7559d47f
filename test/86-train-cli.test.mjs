// `c2c train`: a fuser from files of conversations, stopped, resumed, in both formats.
import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadFuser, loadModel } from "../dist/index.js";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const main = path("../dist/cli/main.js");
const models = ["receiver", "sharer"].map((name) => path(`../models/pair/${name}`));
const folder = await mkdtemp(join(tmpdir(), "c2c-train-cli-"));
test.after(() => rm(folder, { recursive: true, force: true }));
const at = (...parts) => join(folder, ...parts);

/** `stopAt`: Ctrl-C once this step was reported. */
function run(args, stopAt = null) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, "train", ...args]);
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (data) => {
      stdout += data;
      if (stopAt !== null && stdout.includes(`"step":${stopAt},`)) {
        child.kill("SIGINT");
        stopAt = null;
      }
    });
    child.stderr.on("data", (data) => (stderr += data));
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}
const lines = (text) =>
  text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

const questions = lines(await readFile(path("../models/pair/questions.jsonl"), "utf8")).slice(0, 40);
const rows = questions.map(({ question, answer }) => ({
  messages: [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ],
}));
rows.splice(3, 0, { messages: [{ role: "user", content: "Nobody answers." }] });
await writeFile(at("chat.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
await writeFile(
  at("recipe.json"),
  JSON.stringify({
    hidden: 12,
    intermediate: 12,
    layerMap: [null, null, 3, 4],
    learningRate: 0.01,
    batchSize: 8,
    accumulate: 1,
    epochs: 3,
    validateEvery: 4,
    seed: "7",
  }),
);
const pair = ["--receiver", models[0], "--sharer", models[1]];
const base = [...pair, "--data", at("chat.jsonl"), "--recipe", at("recipe.json"), "--validation", "0.1", "--json"];

/** Trained in the test that says so, and used by those behind it. */
let steps = [];

test("trains; Ctrl-C and --resume give the same weights and the whole curve", async () => {
  const [whole, first] = await Promise.all([
    run([...base, "--out", at("whole")]),
    run([...base, "--out", at("parts")], 5),
  ]);
  assert.is(whole.code, 0, whole.stderr);
  assert.match(whole.stderr, /1 rows without a reply are left out/);
  const events = lines(whole.stdout);
  steps = events.filter(({ type }) => type === "step");
  const held = events.filter(({ type }) => type === "validation");
  assert.equal(
    held.map(({ step }) => step),
    [...held.slice(0, -1).map((_, i) => 4 * (i + 1)), steps.length],
  );
  // 40 conversations less those held out, three times, 8 a step.
  assert.ok(steps.length >= 12 && steps.length < 15, steps.length);
  const mean = (part) => part.reduce((sum, { loss }) => sum + loss, 0) / part.length;
  assert.ok(mean(steps.slice(-4)) < 0.95 * mean(steps.slice(0, 4)), JSON.stringify(steps.map(({ loss }) => loss)));
  const done = events.at(-1);
  assert.equal(done, {
    type: "done",
    folder: at("whole"),
    format: "native",
    loss: steps.at(-1).loss,
    openGates: steps.at(-1).openGates,
    validation: held.at(-1).loss,
  });
  const svg = await readFile(at("whole", "training.svg"), "utf8");
  for (const label of ["Fuser training", "validation", "open gates"]) assert.ok(svg.includes(label), label);
  assert.equal((await readdir(at("whole"))).sort(), ["final", "log.jsonl", "training.svg"]);

  assert.is(first.code, 130, first.stderr);
  assert.match(first.stderr, /--resume/);
  assert.ok((await readdir(at("parts", "training"))).some((name) => /^checkpoint-\d+$/.test(name)));
  const refused = await run([...base, "--out", at("parts")]);
  assert.is(refused.code, 1);
  assert.match(refused.stderr, /holds an unfinished run/);
  const second = await run([...base, "--out", at("parts"), "--resume"]);
  assert.is(second.code, 0, second.stderr);
  const resumed = lines(second.stdout);
  assert.ok(resumed[0].step >= 6, JSON.stringify(resumed[0]));
  const weights = (name) => readFile(at(name, "final", "fuser.safetensors"));
  assert.ok((await weights("whole")).equals(await weights("parts")));
  assert.equal(
    lines(await readFile(at("parts", "log.jsonl"), "utf8")),
    lines(await readFile(at("whole", "log.jsonl"), "utf8")),
  );

  const again = await run([...base, "--out", at("parts"), "--resume"]);
  assert.equal(lines(again.stdout), [{ ...done, folder: at("parts") }]);
});

test("the reference's layout: the same weights, aligned as the models need it; parquet rows", async () => {
  const out = at("reference");
  const other = await run([...base, "--out", out, "--format", "reference"]);
  assert.is(other.code, 0, other.stderr);
  assert.equal((await readdir(out)).sort(), ["config.json", "final", "log.jsonl", "training.svg"]);
  assert.ok((await readdir(join(out, "final"))).includes("projector_0.pt"));
  const [receiver, sharer] = await Promise.all(models.map((name) => loadModel({ kind: "folder", path: name })));
  for (const name of ["reference", "whole"]) {
    const fuser = await loadFuser({ kind: "folder", path: at(name) }, { receiver, sharer });
    assert.equal(fuser.layerMap, [null, null, 3, 4]);
    await fuser.save(at(`saved-${name}`));
    await fuser.dispose();
    // The tokenizers differ.
    assert.is(JSON.parse(await readFile(at(`saved-${name}`, "fuser.json"), "utf8")).align, "first");
  }
  const weights = (name) => readFile(at(`saved-${name}`, "fuser.safetensors"));
  assert.ok((await weights("reference")).equals(await weights("whole")));

  const data = ["--data", path("fixtures/tasks/openbookqa.parquet"), "--validation", "0"];
  // In place of the reference's fuser.
  const native = await run([...pair, ...data, "--recipe", at("recipe.json"), "--out", out]);
  assert.is(native.code, 0, native.stderr);
  assert.match(native.stdout, /loss \d+\.\d{4}; curves in training\.svg\n$/);
  assert.equal((await readdir(out)).sort(), ["final", "log.jsonl", "training.svg"]);
  assert.ok((await readdir(join(out, "final"))).includes("fuser.json"));
  await receiver.dispose();
  await sharer.dispose();
});

test("what cannot be is one line and status 1, before anything is trained", async () => {
  await writeFile(at("wrong.json"), JSON.stringify({ hidden: 12, learning_rate: 1 }));
  await writeFile(at("layers.json"), JSON.stringify({ layerMap: [0, 0] }));
  await writeFile(at("bad.jsonl"), `${JSON.stringify(rows[0])}\n{"messages": [{"role": "robot", "content": ""}]}\n`);
  const data = ["--data", at("chat.jsonl")];
  const cases = [
    [
      ["--receiver", "nobody/nothing", "--sharer", "x/y", ...data, "--recipe", at("wrong.json")],
      /learning_rate: there/,
    ],
    [["--receiver", "nobody/nothing", "--sharer", "x/y", "--data", at("bad.jsonl")], /FILE_INVALID: .*row 1 /],
    [[...pair, ...data, "--recipe", at("layers.json")], /layerMap/],
    [[...pair, ...data, "--recipe", at("none.json")], /IO_FAILED: .*none\.json/],
    [[...pair, ...data, "--validation", "1"], /0 to below 1/],
  ];
  const results = await Promise.all(cases.map(([args]) => run([...args, "--out", at("none")])));
  for (const [i, { code, stderr }] of results.entries()) {
    assert.is(code, 1);
    assert.match(stderr, /(^|\n)error[^\n]+\n$/);
    assert.match(stderr, cases[i][1]);
  }
});

test.run();
