import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { subjectOf } from "../dist/evaluate/read-task.js";
import { layouts } from "../dist/evaluate/tasks/index.js";
import { pythonShuffle } from "../dist/evaluate/tasks/python-shuffle.js";
import { readTask } from "../dist/index.js";
import { fails } from "./support.mjs";

const fixture = (name) => fileURLToPath(new URL(`fixtures/tasks/${name}`, import.meta.url));
let folder;
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tasks-"));
});
test.after(() => rm(folder, { recursive: true }));

async function all(task) {
  const questions = [];
  for await (const question of task.questions) questions.push(question);
  return questions;
}
const read = (layout, options, file = `${layout}.jsonl`) => all(readTask(layout, fixture(file), options));

test("every layout has a fixture and gives questions whose answers fit their choices", async () => {
  for (const { name } of layouts.filter((layout) => layout.name !== "questions")) {
    const questions = await read(name);
    assert.ok(questions.length > 0, name);
    assert.is(new Set(questions.map(({ id }) => id)).size, questions.length);
    for (const { messages, answer, choices } of questions) {
      assert.is(messages.at(-1).role, "user");
      assert.ok(answer !== "");
      if (choices) assert.ok("ABCDEFGHIJ".slice(0, choices.length).includes(answer), name);
    }
  }
});

test("MMLU-Redux: the reference's prompt to the letter; keys corrected; what has no answer is not asked", async () => {
  const questions = await read("mmlu-redux");
  assert.equal(
    questions.map(({ id, group, answer }) => [id, group, answer]),
    [
      ["mmlu-redux-0", "mmlu-redux", "C"],
      ["mmlu-redux-1", "mmlu-redux", "D"],
      ["mmlu-redux-4", "mmlu-redux", "A"],
      ["mmlu-redux-5", "mmlu-redux", "B"],
    ],
  );
  assert.is(
    questions[0].messages[0].content,
    'Accurately answer the following question:\n\nHow many sides has a hexagon?\n\nChoices:\nA. four\nB. five\nC. six\nD. eight\n\n\nInstructions:\n- Carefully read the question and all options.\n- Select the single most correct answer.\n- Respond ONLY in the following format: "The correct answer is A/B/C/D".\n- Do not include any explanations, additional text, or punctuation besides the answer.\n\nThe correct answer is',
  );
  assert.is(
    questions[0].ask,
    "Briefly describe the most useful background to solve the problem:\n\nHow many sides has a hexagon?",
  );
  assert.equal(await read("mmlu-redux", {}, "mmlu-redux.parquet"), questions);
});

test("prompts: step by step, and the question alone", async () => {
  const [reasoning] = await read("mmlu-redux", { prompt: "reasoning" });
  assert.match(
    reasoning.messages[0].content,
    /brief(?:ly)\.\n- Then give the final answer starting with The correct answer is$/,
  );
  assert.is(readTask("mmlu-redux", "x.jsonl", { prompt: "reasoning" }).maxNewTokens, 1024);
  const [plain] = await read("mmlu-redux", { prompt: "plain" });
  assert.is(
    plain.messages[0].content,
    "How many sides has a hexagon?\n\nChoices:\nA. four\nB. five\nC. six\nD. eight\n",
  );
});

test("ARC, OpenBookQA: labels may be digits; five choices have an E", async () => {
  const arc = await read("arc-challenge");
  assert.equal(
    arc.map(({ answer }) => answer),
    ["B", "A", "C"],
  );
  assert.match(arc[0].messages[0].content, '"The correct answer is A/B/C/D"');
  assert.match(arc[1].messages[0].content, '"The correct answer is A/B/C/D"');
  assert.match(arc[2].messages[0].content, '"The correct answer is A/B/C/D/E"');
  const openbook = await read("openbookqa", {}, "openbookqa.parquet");
  assert.equal(openbook, await read("openbookqa"));
  assert.match(openbook[1].messages[0].content, "Water that is heated enough turns into\n\nChoices:\nA. wood\n");
  assert.is(openbook[1].answer, "D");
});

test("C-Eval: rows without an answer are not asked; MMLU-Pro: ten choices", async () => {
  const ceval = await read("c-eval");
  assert.equal(
    ceval.map(({ id, answer }) => [id, answer]),
    [
      ["c-eval-0", "C"],
      ["c-eval-1", "A"],
    ],
  );
  const pro = await read("mmlu-pro");
  assert.equal(
    pro.map(({ id, group, answer }) => [id, group, answer]),
    [
      ["70", "other", "G"],
      ["71", "math", "B"],
    ],
  );
  assert.match(pro[0].messages[0].content, "A/B/C/D/E/F/G/H/I/J");
});

test("GPQA: choices in the order in which the reference shuffles them", async () => {
  // Recorded from Python: random.Random(seed).shuffle([0, 1, 2, 3]) and, for 7, of 0 to 999.
  for (const [seed, order] of [
    [0, [2, 0, 1, 3]],
    [1, [3, 0, 2, 1]],
    [42, [2, 1, 3, 0]],
    [123456789, [0, 1, 2, 3]],
    [4294967295, [2, 3, 0, 1]],
  ]) {
    assert.equal(pythonShuffle(4, seed), order);
  }
  assert.equal(pythonShuffle(1000, 7).slice(-4), [404, 154, 970, 331]);
  const gpqa = await read("gpqa-diamond");
  assert.equal(gpqa[0].choices, ["the proton", "a neutron", "the electron", "the positron"]);
  assert.equal(gpqa[1].choices, ["an ionic bond", "a hydrogen bond", "a covalent bond\n", "a metallic bond"]);
  assert.equal(
    gpqa.map(({ group, answer }) => [group, answer]),
    [
      ["Physics", "B"],
      ["Chemistry", "C"],
    ],
  );
});

test("GSM8K and MATH-500: numbers after ####, commas and all", async () => {
  assert.equal(
    (await read("gsm8k")).map(({ answer, choices }) => [answer, choices]),
    [
      ["31", undefined],
      ["1200", undefined],
    ],
  );
  const [first] = await read("math-500");
  assert.equal([first.id, first.group, first.answer], ["test/prealgebra/1.json", "Prealgebra", "\\frac{3}{4}"]);
  assert.match(first.messages[0].content, /^Solve the following math problem step by step\./);
});

test("LongBench: the quarter that the reference asks; its templates; several answers", async () => {
  const task = readTask("longbench", fixture("longbench.jsonl"), {
    templates: { hotpotqa: "{context}\n\nNow: {input} {other}" },
  });
  const questions = await all(task);
  // SHA-256 of the id is 1 modulo 4.
  assert.equal(
    questions.map(({ id }) => id),
    ["made7", "made8", "made9", "made11"],
  );
  assert.is(
    questions[0].messages[0].content,
    "Person 7 lives in town 7. Person 8 lives elsewhere.\n\nNow: Where does person 7 live? {other}",
  );
  assert.equal([questions[0].answer, questions[0].accept, questions[0].group], ["town 7", ["in town 7"], "hotpotqa"]);
  assert.equal(task.judge("He lives in Town 7.", questions[0]).correct, true);
});

test("one's own questions; a filter on fields", async () => {
  const path = join(folder, "own.jsonl");
  const rows = [
    { id: "a", question: "Who?", answer: "nobody", who: "sharer", ask: "Tell me." },
    { id: "b", question: "Which?", answer: "B", choices: ["x", "y"], group: "g" },
    { id: 3, question: "What?", answer: "3", who: "receiver", accept: ["three"] },
  ];
  await writeFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
  const [a, b, c] = await all(readTask("questions", path));
  assert.equal(a, {
    id: "a",
    group: "sharer",
    ask: "Tell me.",
    messages: [{ role: "user", content: "Who?" }],
    answer: "nobody",
  });
  assert.equal([b.answer, b.choices, b.group], ["B", ["x", "y"], "g"]);
  assert.equal([c.id, c.accept], ["3", ["three"]]);
  assert.equal((await all(readTask("questions", path, { where: { who: "receiver" } }))).length, 1);
});

test("a folder: every file in order, subjects from the paths; a task can be read twice", async () => {
  const home = join(folder, "redux");
  for (const subject of ["virology", "anatomy"]) {
    await mkdir(join(home, subject), { recursive: true });
    await cp(fixture("mmlu-redux.parquet"), join(home, subject, "test-00000-of-00001.parquet"));
  }
  const task = readTask("mmlu-redux", home);
  const questions = await all(task);
  assert.equal([...new Set(questions.map(({ group }) => group))], ["anatomy", "virology"]);
  assert.is(questions.length, 8);
  assert.equal(await all(task), questions);
  assert.equal(["a/b/val.jsonl", "a/astronomy.jsonl", "a/test-00001-of-00003.parquet"].map(subjectOf), [
    "b",
    "astronomy",
    "a",
  ]);
});

test("what is wrong is named: fields with their row, ids that come twice, empty folders, layouts and options", async () => {
  const bad = async (layout, row, pattern) => {
    const path = join(folder, "bad.jsonl");
    await writeFile(path, `${JSON.stringify(row)}\n`);
    await fails(all(readTask(layout, path)), "FILE_INVALID", pattern);
  };
  await bad("mmlu-redux", { question: 1, choices: ["a"], answer: 0 }, /row 0: question must be a string/);
  await bad("mmlu-redux", { question: "q", choices: ["a"], answer: 1 }, /row 0: answer must be an index/);
  await bad("mmlu-redux", { question: "q", choices: "ab", answer: 1 }, /choices must be a list/);
  await bad(
    "arc-challenge",
    { id: "x", question: "q", choices: { text: ["a"], label: ["A"] }, answerKey: "B" },
    /answerKey B/,
  );
  await bad("gsm8k", { question: "q", answer: "5" }, /####/);
  await bad("mmlu-pro", { question_id: 1, question: "q", options: Array(11).fill("x"), answer_index: 0 }, /11 choices/);
  const twice = join(folder, "twice.jsonl");
  await writeFile(twice, '{"id":"a","question":"q","answer":"x"}\n{"id":"a","question":"q","answer":"x"}\n');
  await fails(all(readTask("questions", twice)), "FILE_INVALID", /row 1: id a has come before/);
  await mkdir(join(folder, "empty"));
  await fails(all(readTask("gsm8k", join(folder, "empty"))), "FILE_INVALID", /no .jsonl/);
  await fails(all(readTask("gsm8k", join(folder, "missing"))), "IO_FAILED", /ENOENT/);
  assert.throws(
    () => readTask("mmlu", "x"),
    (error) => error.code === "UNSUPPORTED",
  );
  assert.throws(
    () => readTask("gsm8k", "x", { prompt: "loud" }),
    (error) => error.code === "OPTION_INVALID",
  );
});

test.run();
