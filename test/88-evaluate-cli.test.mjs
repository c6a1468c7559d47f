import { spawn } from "node:child_process";
import { appendFile, cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { csvOf, formatReport, reportTasks } from "../dist/cli/evaluate/report.js";
import { runEvaluation } from "../dist/cli/evaluate/run.js";
import { loadFuser, loadModel } from "../dist/index.js";
import { changedFuser, ownSharer, widen } from "./fusers.mjs";
import { fails } from "./support.mjs";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const pair = (name) => path(`../models/pair/${name}`);
const main = path("../dist/cli/main.js");
let folder;
let identical;
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "evaluate-"));
  const receiver = await loadModel({ kind: "folder", path: pair("receiver") });
  const sharer = await loadModel({ kind: "folder", path: pair("sharer") });
  const fuser = await loadFuser({ kind: "folder", path: pair("fuser") }, { receiver, sharer });
  identical = await changedFuser(fuser, join(folder, "identical"), widen, ownSharer);
  for (const handle of [fuser, sharer, receiver]) await handle.dispose();
});
test.after(() => rm(folder, { recursive: true }));

const base = () => ({
  output: "results",
  receiver: pair("receiver"),
  links: [{ sharer: pair("sharer"), fuser: pair("fuser") }],
  subjects: ["receiver", "sharer", "c2c"],
  tasks: [
    { layout: "questions", path: pair("questions.jsonl"), name: "people", maxNewTokens: 6, where: { who: "sharer" } },
  ],
  limit: 10,
  batch: 4,
  timed: 2,
  threads: 1,
});

/** Writes a configuration into a folder of its own. */
async function configured(name, change = {}) {
  await mkdir(join(folder, name), { recursive: true });
  const file = join(folder, name, "eval.json");
  await writeFile(file, JSON.stringify({ ...base(), ...change }));
  return file;
}

const lines = async (file) => {
  const text = await readFile(file, "utf8").catch(() => "");
  return text.split("\n").slice(0, -1);
};
const essence = ({ tasks }) =>
  tasks.map(({ subjects, audits }) => [
    subjects.map(({ name, records }) => [name, records.map(({ id, text, correct }) => [id, text, correct])]),
    audits,
  ]);

test("killed at any moment and run again: the same results as in one go; nothing is asked twice", async () => {
  const whole = await runEvaluation(await configured("whole"));
  const config = await configured("killed");
  const child = spawn(process.execPath, [main, "evaluate", "--config", config], { stdio: "ignore" });
  const ended = new Promise((done) => child.on("exit", (_, signal) => done(signal)));
  const answers = join(folder, "killed/results/people/receiver.jsonl");
  while ((await lines(answers)).length < 3) await new Promise((done) => setTimeout(done, 5));
  child.kill("SIGKILL");
  assert.is(await ended, "SIGKILL");
  const before = await lines(answers);
  // The write that the end came into.
  await appendFile(answers, '{"id":"q00');
  const resumed = await runEvaluation(config);
  assert.equal(essence(resumed), essence(whole));
  assert.equal((await lines(answers)).slice(0, before.length), before);
  assert.is((await lines(answers)).length, 10);
  const asked = [];
  await runEvaluation(config, { onProgress: (part) => asked.push(part) });
  assert.equal(asked, []);
});

test("the command: tables, report, CSV and chart; --json last; the audit beside the accuracy", async () => {
  const config = await configured("whole");
  const child = spawn(process.execPath, [main, "evaluate", "--config", config, "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let out = "";
  for await (const chunk of child.stdout) out += chunk;
  const report = JSON.parse(out.trim().split("\n").at(-1));
  const results = join(folder, "whole/results");
  assert.equal(JSON.parse(await readFile(join(results, "report.json"), "utf8")), report);
  const [task] = report.tasks;
  assert.equal(
    task.subjects.map(({ name, n }) => [name, n]),
    [
      ["receiver", 10],
      ["sharer", 10],
      ["c2c", 10],
    ],
  );
  const [receiver, sharer, c2c] = task.subjects;
  assert.ok(sharer.accuracy === 1 && receiver.accuracy < 0.2 && c2c.accuracy > 0.3 && c2c.times.n === 2);
  const difference = task.pairs.find(({ first, second }) => first === "c2c" && second === "receiver");
  assert.ok(Math.abs(difference.value - (c2c.accuracy - receiver.accuracy)) < 1e-12);
  assert.is(difference.onlyFirst - difference.onlySecond, Math.round(difference.value * 10));
  const { audits } = task;
  assert.is(audits.c2c.n + audits.c2c.leftOut, 10);
  assert.match(await readFile(join(results, "report.txt"), "utf8"), /Audit of cache-to-cache[\s\S]*Verdict:/);
  assert.match(out, /cache-to-cache − receiver alone/);
  assert.match(await readFile(join(results, "chart.svg"), "utf8"), /^<svg/);
  const csv = (await readFile(join(results, "answers.csv"), "utf8")).trim().split("\r\n");
  assert.is(csv.length, 1 + 3 * 10);
  assert.match(csv[1], /^people,receiver,q0000,sharer,/);
});

test("the controls single and identical; letters; several tasks", async () => {
  // Three questions of different lengths: none has a partner.
  const science = path("fixtures/tasks/openbookqa.parquet");
  const config = await configured("controls", {
    single: pair("receiver"),
    identical,
    subjects: ["receiver", "single", "text", "identical", "c2c"],
    text: { style: "before", maxMessageTokens: 64 },
    limit: 6,
    timed: 0,
    tasks: [...base().tasks, { layout: "openbookqa", path: science, method: "logits" }],
  });
  const { tasks } = await runEvaluation(config);
  const [people, letters] = tasks;
  const texts = (task, name) => task.subjects.find((one) => one.name === name).records.map(({ text }) => text);
  assert.equal(texts(people, "single"), texts(people, "receiver"));
  assert.is(texts(people, "identical").length, 6);
  assert.equal(Object.keys(people.audits), ["identical", "c2c"]);
  // The audit of the cache has the text beside it; the receiver as its own sharer has none.
  const { c2c, identical: own } = people.audits;
  assert.ok(c2c.accuracy.text > 0.5 && c2c.accuracy.sharer === 1);
  assert.equal([own.accuracy.text, own.accuracy.sharer], [null, own.accuracy.receiver]);
  assert.is(own.accuracy.self, own.accuracy.correct);
  assert.is(typeof letters.audits.identical, "string");
  const report = reportTasks(tasks);
  assert.equal(
    Object.values(report.tasks[1].subjects[0].answers).reduce((sum, count) => sum + count, 0),
    3,
  );
  const text = formatReport(report, [false, true]);
  assert.match(text, /receiver fine-tuned alone/);
  assert.match(text, /Answers given +[A-D]/);
  assert.match(text, /not audited: .*nothing to mismatch/);
});

test("CSV: quotes, commas and line ends", () => {
  const timings = { firstTokenMs: 1, newTokens: 2 };
  const records = [{ id: "a", answer: "x", predicted: null, correct: false, text: 'say "a", b\nc', timings }];
  const csv = csvOf([{ name: "t", subjects: [{ name: "c2c", records }] }]);
  assert.is(csv.split("\r\n")[1], 't,c2c,a,,x,,0,,1.00,2,"say ""a"", b\nc"');
});

test("configurations and folders that are wrong are named", async () => {
  const refuse = async (name, change, code, pattern) => {
    await fails(runEvaluation(await configured(name, change)), code, pattern);
  };
  await refuse("a", { limit: 0 }, "FILE_INVALID", /key limit/);
  await refuse("a", { speed: 1 }, "FILE_INVALID", /key speed/);
  await refuse("a", { subjects: ["single"] }, "FILE_INVALID", /single needs single/);
  await refuse("a", { links: [], subjects: ["c2c"] }, "FILE_INVALID", /c2c needs links/);
  await refuse("a", { tasks: [...base().tasks, ...base().tasks] }, "FILE_INVALID", /two tasks/);
  await refuse("a", { tasks: [{ ...base().tasks[0], name: "../x" }] }, "FILE_INVALID", /tasks\.0\.name/);
  await refuse("whole", { limit: 5 }, "OPTION_INVALID", /another evaluation/);
  await fails(runEvaluation(join(folder, "none.json")), "IO_FAILED", /ENOENT/);
  // Answers to other questions than the task's.
  const config = await configured("swapped");
  await cp(join(folder, "whole/results"), join(folder, "swapped/results"), { recursive: true });
  const answers = join(folder, "swapped/results/people/c2c.jsonl");
  const [first, second] = await lines(answers);
  await writeFile(answers, `${second}\n${first}\n`);
  await fails(runEvaluation(config), "FILE_INVALID", /line 1 answers q0001/);
});

test.run();
