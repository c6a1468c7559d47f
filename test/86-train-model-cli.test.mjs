import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadModel } from "../dist/index.js";

const main = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "c2c-train-model-"));
test.after(() => rm(folder, { recursive: true, force: true }));
const at = (...parts) => join(folder, ...parts);

/** `stopAt`: Ctrl-C once this step was reported. */
function run(args, stopAt = null) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, ...args]);
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

await writeFile(
  at("config.json"),
  JSON.stringify({
    model_type: "qwen2",
    architectures: ["Qwen2ForCausalLM"],
    hidden_size: 32,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    num_hidden_layers: 2,
    intermediate_size: 48,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    hidden_act: "silu",
    tie_word_embeddings: true,
    initializer_range: 0.1,
  }),
);
const colours = ["red", "blue", "green", "white"];
const rows = ["sky", "grass", "snow", "rose"].map((thing, i) => ({
  messages: [
    { role: "user", content: `Which colour is ${thing}?` },
    { role: "assistant", content: colours[(i + 1) % 4] },
  ],
}));
await writeFile(at("chat.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
await writeFile(
  at("recipe.json"),
  JSON.stringify({ steps: 24, batchSize: 4, learningRate: 0.01, warmupSteps: 2, seed: "7" }),
);
const base = [
  "train-model",
  "--config",
  at("config.json"),
  "--train-tokenizer",
  "300",
  "--data",
  at("chat.jsonl"),
  "--recipe",
  at("recipe.json"),
  "--json",
];

test("a model and its tokenizer from a few lines of chat; Ctrl-C and --resume give the same weights", async () => {
  const [whole, first] = await Promise.all([
    run([...base, "--out", at("whole")]),
    run([...base, "--out", at("parts")], 5),
  ]);
  assert.is(whole.code, 0, whole.stderr);
  const events = whole.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const steps = events.filter(({ type }) => type === "step");
  assert.is(steps.length, 24);
  assert.ok(steps.at(-1).loss < 0.5 * steps[0].loss, `${steps[0].loss} ${steps.at(-1).loss}`);
  assert.is(events.at(-1).type, "done");
  assert.ok((await readFile(at("whole", "training.svg"), "utf8")).includes("Model training"));

  assert.is(first.code, 130, first.stderr);
  assert.match(first.stderr, /--resume/);
  assert.ok((await readdir(at("parts"))).some((name) => /^checkpoint-\d+$/.test(name)));
  const second = await run([...base, "--out", at("parts"), "--resume"]);
  assert.is(second.code, 0, second.stderr);
  const resumed = second.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.ok(resumed[0].step >= 6, JSON.stringify(resumed[0]));
  const weights = (name) => readFile(at(name, "model.safetensors"));
  assert.ok((await weights("whole")).equals(await weights("parts")));
  const lines = (await readFile(at("parts", "log.jsonl"), "utf8"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(
    lines.map(({ step }) => step),
    steps.map(({ step }) => step),
  );

  const model = await loadModel({ kind: "folder", path: at("whole") });
  assert.ok(model.shape.vocab > 259 && model.shape.vocab <= 300, model.shape.vocab);
  const { tokens } = await model.encode("Which colour is snow?");
  const cache = await model.prefill(model.tokens(tokens.slice(0, -1)));
  const answer = await model.generate(cache, model.tokens(tokens.slice(-1)), { maxNewTokens: 4 }).done();
  assert.ok(answer.text.length > 0);
  cache.dispose();
  await model.dispose();
});

test("continues a model on plain text with loss on all", async () => {
  await writeFile(at("text.jsonl"), '{"text": "The sky is blue and the grass is green."}\n');
  const args = [
    "train-model",
    "--model",
    at("whole"),
    "--data",
    at("text.jsonl"),
    "--out",
    at("more"),
    "--steps",
    "2",
    "--loss",
    "all",
  ];
  const { code, stdout, stderr } = await run(args);
  assert.is(code, 0, stderr);
  assert.match(stdout, /loss \d/);
  assert.ok((await readdir(at("more"))).includes("tokenizer.json"));
});

test("what cannot be is one line and status 1", async () => {
  await writeFile(
    at("small.json"),
    JSON.stringify({ ...JSON.parse(await readFile(at("config.json"), "utf8")), vocab_size: 100 }),
  );
  await writeFile(at("wrong.json"), JSON.stringify({ steps: 1, rate: 2 }));
  const data = ["--data", at("chat.jsonl"), "--out", at("none")];
  const cases = [
    [["--config", at("config.json"), "--tokenizer", at("whole"), ...data], /steps/],
    [
      ["--config", at("config.json"), "--tokenizer", at("whole"), ...data, "--recipe", at("wrong.json")],
      /rate: there is no such key/,
    ],
    [["--config", at("small.json"), "--tokenizer", at("whole"), ...data, "--steps", "1"], /vocab_size 100 is below/],
    [["--tokenizer", at("whole"), ...data, "--steps", "1"], /--config or --model/],
    [["--config", at("config.json"), ...data, "--steps", "1"], /--tokenizer or --train-tokenizer/],
  ];
  const results = await Promise.all(cases.map(([args]) => run(["train-model", ...args])));
  for (const [i, { code, stderr }] of results.entries()) {
    assert.is(code, 1);
    assert.match(stderr, /^error OPTION_INVALID: [^\n]+\n$/);
    assert.match(stderr, cases[i][1]);
  }
});

test.run();
