import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { extractAnswer, extractChoice } from "../dist/evaluate/choices.js";
import { inOrder } from "../dist/evaluate/in-order.js";
import { judgeWords } from "../dist/evaluate/judge.js";
import { finalAnswer, judgeMaths, sameMaths } from "../dist/evaluate/maths.js";
import { subjectOf } from "../dist/evaluate/subject.js";
import { connect, connectByText, evaluate, loadFuser, loadModel } from "../dist/index.js";
import { native } from "../dist/native.js";
import { difference, mcnemar, median, pair, wilson } from "../dist/statistics.js";
import { fails } from "./support.mjs";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const folder = (name) => ({ kind: "folder", path: path(`../models/pair/${name}`) });
const close = (actual, expected, within) =>
  assert.ok(Math.abs(actual - expected) <= within, `${actual}, expected ${expected}`);

// ── statistics ─────────────────────────────────────────────────────────────────────────────────────────────────────
test("Wilson's interval: the examples of Newcombe (Statistics in Medicine 17, 1998, 857-872)", () => {
  for (const [correct, n, low, high] of [
    [81, 263, 0.2553, 0.3662],
    [15, 148, 0.0624, 0.1605],
    [0, 20, 0, 0.1611],
    [1, 29, 0.0061, 0.1718],
  ]) {
    const interval = wilson(correct, n);
    close(interval.low, low, 5e-5);
    close(interval.high, high, 5e-5);
  }
  assert.equal(wilson(0, 0), { low: 0, high: 1 });
  assert.is(wilson(20, 20).high, 1);
});

test("McNemar's exact p: binomial sums; large counts; symmetric", () => {
  close(mcnemar({ first: 1, second: 7 }), 18 / 256, 1e-12);
  close(mcnemar({ first: 0, second: 6 }), 2 / 64, 1e-12);
  close(mcnemar({ first: 59, second: 121 }) / 4.434449263755176e-6, 1, 1e-9);
  close(mcnemar({ first: 1000, second: 1200 }) / 2.1817026407914712e-5, 1, 1e-9);
  assert.is(mcnemar({ first: 7, second: 1 }), mcnemar({ first: 1, second: 7 }));
  assert.is(mcnemar({ first: 0, second: 0 }), 1);
  assert.is(mcnemar({ first: 5, second: 5 }), 1);
});

test("Tango's interval: airway example of Fagerland and others (BMC Med Res Methodol 14, 2014), Agresti's ratings", () => {
  const airway = difference({ first: 1, second: 7, n: 21 });
  close(airway.low, -0.517, 5e-4);
  close(airway.high, -0.026, 5e-4);
  const ratings = difference({ first: 86, second: 150, n: 1600 });
  close(ratings.value, -0.04, 1e-12);
  close(ratings.low, -0.059, 5e-4);
  close(ratings.high, -0.021, 5e-4);
});

test("the difference turns its sign with the systems and stays within −1 and 1", () => {
  const one = difference({ first: 12, second: 3, n: 40 });
  const other = difference({ first: 3, second: 12, n: 40 });
  close(one.low, -other.high, 1e-9);
  close(one.high, -other.low, 1e-9);
  assert.equal(difference({ first: 0, second: 0, n: 0 }), { value: 0, low: -1, high: 1 });
  for (const [first, second, n] of [
    [1, 0, 1],
    [0, 0, 5],
    [5, 0, 5],
    [0, 5, 5],
  ]) {
    const { value, low, high } = difference({ first, second, n });
    assert.ok(-1 <= low && low <= value && value <= high && high <= 1, JSON.stringify({ value, low, high }));
  }
  assert.equal(pair([true, true, false, false], [true, false, true, false]), { first: 1, second: 1, n: 4 });
  assert.is(median([3, 1, 2]), 2);
  assert.is(median([4, 1]), 2.5);
});

// ── answers in texts ───────────────────────────────────────────────────────────────────────────────────────────────
test("choices A to D are found as recorded", async () => {
  const { answers } = JSON.parse(await readFile(path("goldens/misc.json"), "utf8"));
  assert.ok(answers.length > 20);
  for (const { text, answer } of answers) assert.is(extractAnswer(text), answer, text);
});

test("letters beyond D count only where there are that many choices", () => {
  assert.is(extractChoice("The correct answer is G.", 10), "G");
  assert.is(extractChoice("The correct answer is G.", 7), "G");
  assert.is(extractChoice("The correct answer is G.", 6), null);
  assert.is(extractChoice("The correct answer is G.", 4), null);
  assert.is(extractChoice("The correct answer is B.", 10), "B");
  assert.is(extractChoice("The correct answer is D.", 2), "D");
  assert.throws(() => extractChoice("A", 11), /choices/);
});

test("mathematical answers: boxed, labelled or last; spelling and numbers", () => {
  assert.is(finalAnswer("so \\boxed{1} and then \\boxed{\\frac{3}{4}}."), "\\frac{3}{4}");
  assert.is(finalAnswer("Answer: 5\nno:\nAnswer: $7$"), "$7$");
  assert.is(finalAnswer("there are 1,200 seats, or 30 rows"), "30");
  assert.is(finalAnswer("\\boxed{never closed"), null);
  assert.is(finalAnswer("none"), null);
  for (const [one, other] of [
    ["\\dfrac{1}{2}", "0.5"],
    ["1/2", "\\frac12"],
    ["1,200", "1200"],
    ["$x = 7$", "7"],
    ["\\text{even}", "even"],
    ["50\\%", "50"],
    ["90^\\circ", "90"],
    ["\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})"],
    ["-\\frac{3}{4}", "-0.75"],
  ]) {
    assert.ok(sameMaths(one, other), `${one} = ${other}`);
  }
  assert.not.ok(sameMaths("7", "7.1"));
  assert.not.ok(sameMaths("(1,2)", "12"));
  assert.not.ok(judgeMaths("", { answer: "0" }).correct);
});

test("words: an accepted answer in the text is right; F1 counts the words in common", () => {
  const question = { answer: "town 3", accept: ["in town 3"] };
  assert.equal(judgeWords("The town 3.", question), { predicted: "The town 3.", correct: true, score: 1 });
  assert.equal(judgeWords("town 31", question).correct, false);
  close(judgeWords("it lies in town 3", question).score, 0.75, 1e-12);
  assert.equal(judgeWords("  ", question), { predicted: null, correct: false, score: 0 });
  assert.is(judgeWords("答案是北京。", { answer: "北京" }).correct, true);
});

// ── several at once ────────────────────────────────────────────────────────────────────────────────────────────────
test("results come in order, never more than a batch at once; a failure ends the rest", async () => {
  let running = 0;
  let most = 0;
  const work = async (item, signal) => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((done) => setTimeout(done, (7 - (item % 7)) * 2));
    running -= 1;
    if (item === 20) throw new Error("twenty");
    signal.throwIfAborted();
    return item;
  };
  const seen = [];
  const run = async (count) => {
    for await (const item of inOrder(
      Array.from({ length: count }, (_, i) => i),
      4,
      work,
    ))
      seen.push(item);
  };
  await run(18);
  assert.equal(
    seen,
    Array.from({ length: 18 }, (_, i) => i),
  );
  assert.is(most, 4);
  seen.length = 0;
  await run(40).then(assert.unreachable, (error) => assert.is(error.message, "twenty"));
  assert.equal(
    seen,
    Array.from({ length: 20 }, (_, i) => i),
  );
  assert.is(running, 0);
});

// ── the embedded pair ──────────────────────────────────────────────────────────────────────────────────────────────
let receiver;
let sharer;
let fuser;
let channel;
let questions;
test.before(async () => {
  native().setThreads(1);
  receiver = await loadModel(folder("receiver"));
  sharer = await loadModel(folder("sharer"));
  fuser = await loadFuser(folder("fuser"), { receiver, sharer });
  channel = connect(receiver, [{ sharer, fuser }]);
  const lines = (await readFile(path("../models/pair/questions.jsonl"), "utf8")).trim().split("\n");
  questions = lines
    .map((line) => JSON.parse(line))
    .filter(({ who }) => who === "sharer")
    .slice(0, 24)
    .map(({ id, question, answer, ask, attribute }) => {
      return { id, messages: [{ role: "user", content: question }], answer, ask, group: attribute };
    });
});
test.after(async () => {
  for (const handle of [fuser, sharer, receiver]) await handle.dispose();
});

async function all(subject, task, options) {
  const events = [];
  for await (const event of evaluate(subject, task, options)) events.push(event);
  return { answers: events.slice(0, -1), done: events.at(-1) };
}
const exact = () => ({ name: "pair", questions, method: "exact", maxNewTokens: 6 });

test("models, channel and text channel on the same questions; a batch changes nothing but the speed", async () => {
  const alone = await all(receiver, exact());
  assert.equal(
    alone.answers.map(({ id }) => id),
    questions.map(({ id }) => id),
  );
  assert.ok(alone.done.accuracy <= 0.1);
  assert.is((await all(sharer, exact())).done.accuracy, 1);
  const fused = await all(channel, exact(), { batch: 8 });
  assert.ok(fused.done.accuracy >= 0.7, `${fused.done.accuracy}`);
  const single = await all(channel, exact(), { batch: 1, limit: 10 });
  assert.equal(
    single.answers.map(({ text }) => text),
    fused.answers.slice(0, 10).map(({ text }) => text),
  );
  assert.is(single.done.n, 10);
  for (const { timings } of fused.answers) {
    assert.ok(timings.firstTokenMs > 0 && timings.sharerMs > 0 && timings.fuseMs > 0 && timings.newTokens > 0);
  }
  const compose = (messages, text) => messages.map((one) => ({ ...one, content: `${text.trim()} ${one.content}` }));
  const text = connectByText(receiver, sharer, { compose, maxMessageTokens: 96 });
  assert.ok((await all(text, exact(), { limit: 8 })).done.accuracy >= 0.8);
});

test("the last event sums up: interval, groups, answers", async () => {
  const { answers, done } = await all(channel, exact());
  const right = answers.filter(({ correct }) => correct).length;
  assert.is(done.accuracy, right / 24);
  assert.equal({ low: done.low, high: done.high }, wilson(right, 24));
  assert.is(
    Object.values(done.answers).reduce((sum, count) => sum + count, 0),
    24,
  );
  const pets = answers.filter((_, i) => questions[i].group === "pet");
  assert.is(done.byGroup.pet, pets.filter(({ correct }) => correct).length / pets.length);
});

test("logits: the likeliest letter after the response's beginning, in every kind of subject", async () => {
  const lettered = questions
    .slice(0, 4)
    .map((question) => ({ ...question, choices: ["one", "two", "three"], answer: "B" }));
  const task = { name: "letters", questions: lettered, method: "logits" };
  for (const subject of [receiver, channel]) {
    const { answers } = await all(subject, task);
    for (const [i, { predicted, text, timings }] of answers.entries()) {
      assert.ok(["A", "B", "C"].includes(predicted));
      assert.is(text, predicted);
      assert.is(timings.newTokens, 0);
      if (subject !== receiver) continue;
      const prompt = await receiver.encode(lettered[i].messages);
      const ids = [...prompt.tokens, ...(await receiver.encodeText("The correct answer is"))];
      const cache = receiver.cache();
      const logits = await receiver.logits(cache, receiver.tokens(ids));
      cache.dispose();
      const row = logits.subarray(-receiver.shape.vocab);
      const first = await Promise.all(["A", "B", "C"].map(async (name) => (await receiver.encodeText(` ${name}`))[0]));
      const best = first.indexOf(first.toSorted((a, b) => row[b] - row[a])[0]);
      assert.is(predicted, ["A", "B", "C"][best]);
    }
  }
  const none = all(receiver, { ...task, questions });
  await fails(none, "OPTION_INVALID", /choices/);
});

test("logits: the response is read unfused, the prompt as the reference fuses it", async () => {
  const question = { ...questions[0], choices: ["one", "two", "three"] };
  const response = "The correct answer is";
  const signal = new AbortController().signal;
  const ids = await receiver.encodeText(response);
  const { tokens } = await receiver.encode(question.messages);
  // Row for row: the whole prompt is fused, its last token too, since the response is what comes last.
  const same = connect(receiver, [{ sharer, fuser, align: "same" }]);
  const all = receiver.tokens([...tokens, ...ids]);
  const sections = [
    { length: tokens.length, links: [0] },
    { length: ids.length, links: [] },
  ];
  // Aligned: message rows only, as in a prompt without a response.
  const own = await channel.prefill(question.messages);
  const after = await receiver.logits(own.cache, ids);
  own.cache.dispose();
  const whole = await same.prefill({ tokens: all, sections });
  whole.cache.dispose();
  for (const [subject, expected] of [
    [same, whole.logits],
    [channel, after],
  ]) {
    const { logits } = await subjectOf(subject).next(question, response, signal);
    const row = expected.slice(-receiver.shape.vocab);
    assert.ok(logits.every((value, i) => Math.abs(value - row[i]) < 1e-4));
  }
});

test("aborts reject with the signal's reason; a consumer may stop; bad options are refused at once", async () => {
  const abort = new AbortController();
  const reason = new Error("enough");
  const run = async () => {
    for await (const event of evaluate(channel, exact(), { batch: 2, signal: abort.signal })) {
      assert.is(event.type, "answer");
      abort.abort(reason);
    }
  };
  await run().then(assert.unreachable, (error) => assert.is(error, reason));
  for await (const event of evaluate(receiver, exact())) {
    assert.is(event.type, "answer");
    break;
  }
  assert.throws(
    () => evaluate(receiver, exact(), { batch: 0 }),
    (error) => error.code === "OPTION_INVALID",
  );
  assert.throws(
    () => evaluate(receiver, exact(), { limit: 1.5 }),
    (error) => error.code === "OPTION_INVALID",
  );
  assert.throws(
    () => evaluate(receiver, { ...exact(), method: "guess" }),
    (error) => error.code === "OPTION_INVALID",
  );
});

test.run();
