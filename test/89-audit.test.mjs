import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { planAudit } from "../dist/audit/audit.js";
import { noise, zeroed } from "../dist/audit/controls.js";
import { partners } from "../dist/audit/mismatch.js";
import { moments, Normals } from "../dist/audit/noise.js";
import { auditReport, formatAudit } from "../dist/audit/report.js";
import { cacheState } from "../dist/cache/cache.js";
import { answers } from "../dist/evaluate/evaluate.js";
import { controlled, planOf } from "../dist/evaluate/subject.js";
import { audit, connect, connectByText, loadFuser, loadModel } from "../dist/index.js";
import { native } from "../dist/native.js";
import { changedFuser, ownSharer, widen } from "./fusers.mjs";
import { fails } from "./support.mjs";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const pairFolder = (name) => ({ kind: "folder", path: path(`../models/pair/${name}`) });

let receiver;
let sharer;
let fuser;
let channel;
let questions;
let folder;
const handles = [];
test.before(async () => {
  native().setThreads(1);
  folder = await mkdtemp(join(tmpdir(), "audit-"));
  receiver = await loadModel(pairFolder("receiver"));
  sharer = await loadModel(pairFolder("sharer"));
  fuser = await loadFuser(pairFolder("fuser"), { receiver, sharer });
  handles.push(fuser, sharer, receiver);
  channel = connect(receiver, [{ sharer, fuser }]);
  const lines = (await readFile(path("../models/pair/questions.jsonl"), "utf8")).trim().split("\n");
  questions = lines
    .map((line) => JSON.parse(line))
    .map(({ id, who, question, answer, ask }) => {
      return { id, who, messages: [{ role: "user", content: question }], answer, ask };
    });
});
test.after(async () => {
  for (const handle of handles) await handle.dispose();
  await rm(folder, { recursive: true });
});

const task = (who, count) => {
  const chosen = questions.filter((question) => question.who === who).slice(0, count);
  return { name: who, questions: chosen, method: "exact", maxNewTokens: 6 };
};

/** The embedded fuser with its tensors changed, loaded for a pair. */
async function changed(name, pair, edit, manifest) {
  const source = { kind: "folder", path: await changedFuser(fuser, join(folder, name), edit, manifest) };
  const loaded = await loadFuser(source, pair);
  handles.unshift(loaded);
  return loaded;
}

// ── the report ─────────────────────────────────────────────────────────────────────────────────────────────────────
/** `right` true, then false, `n` in all. */
const outcomes = (right, n = 40) => Array.from({ length: n }, (_, i) => i < right);
const report = (receiverRight, correct, mismatched) =>
  auditReport({
    receiver: outcomes(receiverRight),
    sharer: outcomes(40),
    correct: outcomes(correct),
    mismatched: outcomes(mismatched),
    zeroed: outcomes(1),
    noise: outcomes(2),
    self: null,
    text: null,
  });

test("verdicts follow the rule", () => {
  assert.is(report(5, 30, 6).verdict, "content crosses");
  // Better than the receiver alone, but as good with another question's cache: a benefit that is no content.
  const general = report(5, 30, 29);
  assert.is(general.verdict, "no detectable content");
  assert.ok(general.benefit.p < 0.05 && general.benefit.value > 0);
  // Content crosses and does harm all the same.
  const harmful = report(30, 15, 2);
  assert.is(harmful.verdict, "harmful");
  assert.ok(harmful.contentGain.p < 0.05);
  // Worse with the right cache than with a wrong one is not content.
  assert.is(report(5, 6, 30).verdict, "no detectable content");
  // Five questions more, none less: p = 2 / 32 > 0.05. Six: 2 / 64.
  assert.is(report(6, 11, 6).verdict, "no detectable content");
  assert.is(report(6, 12, 6).verdict, "content crosses");
});

test("the report's numbers; the printed table", () => {
  const made = report(4, 30, 6);
  assert.equal(made.accuracy, {
    receiver: 0.1,
    sharer: 1,
    correct: 0.75,
    mismatched: 0.15,
    zeroed: 0.025,
    noise: 0.05,
    text: null,
    self: null,
  });
  assert.is(made.n, 40);
  assert.is(made.contentGain.value, 0.6);
  assert.ok(made.contentGain.low > 0.4 && made.contentGain.high < 0.76);
  const text = formatAudit(made);
  assert.match(text, /right sharer cache\s+75\.0 %/);
  assert.match(text, /content crosses/);
  assert.not.match(text, /its own sharer|text-to-text/);
});

// ── the controls ───────────────────────────────────────────────────────────────────────────────────────────────────
test("partners: the next question in order, cyclic, of another answer and as many sharer rows", async () => {
  const { questions: asked } = task("sharer", 60);
  const found = await partners(channel, asked);
  const rows = [];
  for (const { messages } of asked) rows.push((await planOf(channel, messages, null)).sharers[0].ids.length);
  let wrapped = 0;
  for (const [i, question] of asked.entries()) {
    let expected;
    for (let step = 1; step < asked.length && !expected; step++) {
      const at = (i + step) % asked.length;
      if (rows[at] !== rows[i] || asked[at].answer === question.answer) continue;
      expected = asked[at];
      if (at < i) wrapped += 1;
    }
    assert.is(found.get(question), expected, question.id);
  }
  assert.ok(wrapped > 0);
  const same = [asked[0], { ...asked[1], answer: asked[0].answer }];
  assert.is((await partners(channel, same)).size, 0);
  await fails(audit(channel, { ...task("sharer"), questions: same }), "OPTION_INVALID", /mismatch/);
});

test("noise: normal numbers of a text's own, with the wanted mean and deviation", () => {
  const draw = (seed, count) => {
    const normals = new Normals(seed);
    return Float32Array.from({ length: count }, () => normals.next());
  };
  assert.equal(draw("q1", 8), draw("q1", 8));
  assert.not.equal(draw("q1", 8), draw("q2", 8));
  const many = draw("many", 40000);
  const { mean, deviation } = moments(many);
  assert.ok(Math.abs(mean) < 0.02 && Math.abs(deviation - 1) < 0.02, `${mean} ${deviation}`);
  const tails = many.filter((value) => Math.abs(value) > 1.959964).length / many.length;
  assert.ok(Math.abs(tails - 0.05) < 0.004, `${tails}`);
  assert.equal(moments(Float32Array.of(1, 3)), { mean: 2, deviation: 1 });
});

test("zeroed and noise change every row of every layer, keys and values, in the way they say", async () => {
  const [question] = questions;
  const plan = await planOf(channel, question.messages, null);
  const { ids, positions } = plan.sharers[0];
  const make = () => sharer.prefill(sharer.tokens(ids), { positions });
  const right = await make();
  for (const [control, check] of [
    [zeroed, (before, after) => assert.ok(after.every((value) => value === 0) && before.some((value) => value !== 0))],
    [
      noise,
      (before, after) => {
        const [was, is] = [moments(before), moments(after)];
        assert.ok(before.every((value, i) => value !== after[i]));
        // Within five standard errors.
        const error = was.deviation / Math.sqrt(before.length);
        assert.ok(Math.abs(is.mean - was.mean) < 5 * error, `${is.mean} ${was.mean}`);
        assert.ok(Math.abs(is.deviation / was.deviation - 1) < 5 / Math.sqrt(2 * before.length));
      },
    ],
  ]) {
    const cache = await make();
    await control.tamper(question, plan)(0, cacheState(cache), 0, ids.length);
    for (let layer = 0; layer < sharer.shape.layers; layer++) {
      for (const part of ["key", "value"]) check(right.read(layer, part), cache.read(layer, part));
    }
    cache.dispose();
  }
  right.dispose();
});

test("self: the receiver's own rows; the same as a sharer that is a copy of the receiver", async () => {
  const copy = await loadModel(pairFolder("receiver"));
  handles.push(copy);
  assert.is((await planAudit(channel, task("sharer", 12))).subjects.has("self"), false);
  const made = await changed("self", { receiver, sharer: copy }, widen, ownSharer);
  const own = connect(receiver, [{ sharer: copy, fuser: made }]);
  const plan = await planAudit(own, task("sharer", 12));
  const texts = async (part) => {
    const said = [];
    const subject = plan.subjects.get(part)[0];
    for await (const { text } of answers(subject, { ...task("sharer"), questions: plan.questions })) said.push(text);
    return said;
  };
  assert.equal(await texts("self"), await texts("correct"));
  assert.not.equal(await texts("self"), await texts("zeroed"));
});

// ── fusers ─────────────────────────────────────────────────────────────────────────────────────────────────────────
test("the embedded pair on the sharer's people: content crosses", async () => {
  const made = await audit(channel, task("sharer", 30));
  assert.is(made.verdict, "content crosses");
  assert.ok(made.n >= 20 && made.n <= 30);
  const { accuracy, contentGain, benefit } = made;
  assert.ok(accuracy.receiver < 0.1 && accuracy.sharer === 1, JSON.stringify(accuracy));
  // 86, 3, 0 and 3 % when the pair was made; one of these questions is 3 %.
  assert.ok(accuracy.correct > 0.7 && accuracy.mismatched < 0.14 && accuracy.zeroed < 0.14 && accuracy.noise < 0.14);
  assert.is(accuracy.self, null);
  assert.is(accuracy.text, null);
  assert.ok(Math.abs(contentGain.value - (accuracy.correct - accuracy.mismatched)) < 1e-12);
  assert.ok(contentGain.low > 0.4 && contentGain.p < 1e-3 && benefit.p < 1e-3);
});

test("text and progress; the same files give the same numbers, however many are asked at once", async () => {
  const compose = (messages, text) => messages.map((one) => ({ ...one, content: `${text.trim()} ${one.content}` }));
  const text = connectByText(receiver, sharer, { compose, maxMessageTokens: 96 });
  const heard = new Map();
  const made = await audit(channel, task("sharer", 8), { text, onProgress: (part, done) => heard.set(part, done) });
  const parts = ["receiver", "sharer", "correct", "mismatched", "zeroed", "noise", "text"];
  assert.equal(
    [...heard],
    parts.map((part) => [part, 1]),
  );
  assert.ok(made.accuracy.text > 0.8);
  assert.equal(await audit(channel, task("sharer", 8), { text, batch: 3 }), made);
});

test("closed gates: no detectable content, the same answers with every cache", async () => {
  const closed = await changed("closed", { receiver, sharer }, (name, values) => {
    if (name.endsWith("gate_logit")) values.fill(-1);
  });
  const made = await audit(connect(receiver, [{ sharer, fuser: closed }]), task("receiver", 14));
  assert.is(made.verdict, "no detectable content");
  const { receiver: alone, correct, mismatched, zeroed: zeros, noise: noisy } = made.accuracy;
  assert.equal([correct, mismatched, zeros, noisy], [alone, alone, alone, alone]);
  assert.ok(alone > 0.9);
  assert.equal(made.benefit, { ...made.contentGain });
  assert.is(made.benefit.p, 1);
});

test("a fuser that cannot see its sharer: no detectable content, though it writes", async () => {
  // The columns of the first layer that read the sharer's rows are zero: what is written no longer depends on them.
  const blind = await changed("blind", { receiver, sharer }, (name, values, [rows, columns]) => {
    if (!/_in\.weight$/.test(name)) return;
    for (let row = 0; row < rows; row++) values.fill(0, row * columns, row * columns + 64);
  });
  const own = connect(receiver, [{ sharer, fuser: blind }]);
  const { cache, reports } = await own.prefill(questions[0].messages);
  cache.dispose();
  assert.ok(
    reports[0].gates.every(({ key, value, keyWeight, valueWeight }) => key && value && keyWeight + valueWeight > 0),
  );
  const made = await audit(own, task("sharer", 24));
  assert.is(made.verdict, "no detectable content");
  assert.is(made.contentGain.value, 0);
  assert.is(made.accuracy.correct, made.accuracy.zeroed);
});

test("a channel that fuses the response too: the controls hold for generated rows", async () => {
  const responding = connect(receiver, [{ sharer, fuser, span: "prompt-and-response" }]);
  const made = await audit(responding, task("sharer", 8));
  assert.ok(made.n > 0);
  assert.is(made.accuracy.self, null);
  const seen = [];
  const watched = {
    tamper: (question, plan) => (link, cache, start, end) => {
      zeroed.tamper(question, plan)(link, cache, start, end);
      seen.push([start, end]);
      for (let layer = 0; layer < sharer.shape.layers; layer++) {
        for (const part of [0, 1]) assert.ok(cache.native.read(layer, part, 0, end).every((value) => value === 0));
      }
    },
  };
  const [question] = task("sharer", 1).questions;
  const { timings } = await controlled(responding, watched).reply(question, 4, new AbortController().signal);
  const rows = (await planOf(responding, question.messages, null)).sharers[0].ids.length;
  // The prompt at once, then a row for each generated token that was read back.
  assert.equal(seen[0], [0, rows]);
  assert.is(seen.length - 1, timings.newTokens - (timings.newTokens === 4 ? 1 : 0));
});

test("c2c audit: the embedded pair without arguments; --json ends with the report and nothing else", async () => {
  const command = async (...args) => {
    const child = spawn(process.execPath, [path("../dist/cli/main.js"), "audit", ...args]);
    const read = async (stream) => {
      let text = "";
      for await (const chunk of stream.setEncoding("utf8")) text += chunk;
      return text;
    };
    const [out, error] = await Promise.all([read(child.stdout), read(child.stderr)]);
    return { out, error };
  };
  const { out } = await command("--limit", "10", "--json");
  const made = JSON.parse(out.trim().split("\n").at(-1));
  assert.equal(Object.keys(made), ["n", "accuracy", "contentGain", "benefit", "verdict"]);
  const expected = await audit(channel, task("sharer", 10));
  assert.equal({ ...made, accuracy: { ...made.accuracy, text: null } }, expected);
  assert.match(out, /right sharer cache[\s\S]*Verdict: [\s\S]*the receiver's own people/);
  assert.match((await command("--fuser", "x")).error, /^error OPTION_INVALID: receiver/);
  assert.match((await command("--receiver", "x")).error, /^error OPTION_INVALID: data/);
});

test("what cannot be audited is refused; an abort rejects with its reason", async () => {
  await fails(audit(connect(receiver, []), task("sharer", 4)), "OPTION_INVALID", /channel/);
  await fails(audit(connectByText(receiver, sharer), task("sharer", 4)), "OPTION_INVALID", /channel/);
  await fails(audit(channel, task("sharer", 4), { limit: 0 }), "OPTION_INVALID", /limit/);
  const abort = new AbortController();
  const reason = new Error("enough");
  const running = audit(channel, task("sharer", 40), { signal: abort.signal, onProgress: () => abort.abort(reason) });
  await running.then(assert.unreachable, (error) => assert.is(error, reason));
});

test.run();
