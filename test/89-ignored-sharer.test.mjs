// A fuser that was trained to ignore its sharer carries nothing, and the audit says so.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { audit, connect, loadFuser, loadModel, readTask, trainFuser } from "../dist/index.js";
import { native } from "../dist/native.js";
import { makeQuestions } from "../dist/pair/questions.js";
import { Random } from "../dist/random.js";

const home = fileURLToPath(new URL("../models/pair/", import.meta.url));
const folder = (name) => ({ kind: "folder", path: `${home}${name}` });
const user = (content) => ({ role: "user", content });
native().setThreads(1);
const receiver = await loadModel(folder("receiver"));
const sharer = await loadModel(folder("sharer"));
const fuser = await loadFuser(folder("fuser"), { receiver, sharer });
test.after(async () => {
  for (const handle of [fuser, sharer, receiver]) await handle.dispose();
});

/** Questions about people whom the fuser was trained on; the sharer reads the one `shift` places on, of as many rows. */
async function lessons(shift) {
  const world = JSON.parse(await readFile(`${home}world.json`, "utf8"));
  const alike = new Map();
  for (const one of makeQuestions(world, "sharer", world.train, 480, new Random(1n, "lessons"))) {
    const { receiver: own, sharer: other } = await fuser.align(await receiver.encode(one.question));
    const rows = `${own.tokens.length} ${other.tokens.length}`;
    alike.set(rows, [...(alike.get(rows) ?? []), one]);
  }
  return [...alike.values()].flatMap((list) =>
    list.map(({ question, answer }, i) => ({
      messages: [user(question), { role: "assistant", content: answer }],
      sharerMessages: [user(list[(i + shift) % list.length].question)],
    })),
  );
}

/** The embedded fuser, trained on for a few steps, and what an audit says to it. */
async function trained(shift) {
  const recipe = {
    align: "first",
    learningRate: 6e-3,
    weightDecay: 0.05,
    batchSize: 16,
    accumulate: 1,
    maxSteps: 24,
    seed: 1n,
  };
  let made;
  for await (const event of trainFuser({ receiver, sharer }, await lessons(shift), recipe, { init: fuser })) {
    if (event.type === "done") made = event.fuser;
  }
  const task = readTask("questions", `${home}questions.jsonl`, { where: { who: "sharer" }, maxNewTokens: 6 });
  const report = await audit(connect(receiver, [{ sharer, fuser: made }]), task, { limit: 60, batch: 32 });
  await made.dispose();
  return report;
}

test("shuffled sharers teach the embedded fuser to ignore its sharer: no detectable content", async () => {
  const { verdict, accuracy } = await trained(7);
  assert.is(verdict, "no detectable content", JSON.stringify(accuracy));
});

test("the same steps with the right sharers leave the content there", async () => {
  const { verdict, accuracy } = await trained(0);
  assert.is(verdict, "content crosses", JSON.stringify(accuracy));
});

test.run();
