// One fuser training step between the embedded pair's models, beside the same step in eager PyTorch where Python has one. Milliseconds
// of the clock and of the processor (all threads, reading and aligning the samples included on this side alone): on a busy machine the
// second says more.
//   node bench/fuser-step.mjs [--threads N] [--steps N] [--rounds N] [--python PROGRAM]
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { loadModel, trainFuser } from "../dist/index.js";
import { native } from "../dist/native.js";
import { fullRecipe } from "../dist/pair/recipe.js";
import { prepareSample } from "../dist/train/samples.js";

const here = dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({
  options: {
    threads: { type: "string", default: "2" },
    steps: { type: "string", default: "30" },
    rounds: { type: "string", default: "3" },
    python: { type: "string", default: "python3" },
  },
});
const steps = Number(values.steps);
const BATCH = 64;
const BATCHES = 8;
const recipe = { ...fullRecipe.fuser.recipe, batchSize: BATCH, accumulate: 1, maxSteps: steps, shuffle: false };

const at = (name) => join(here, "../models/pair", name);
const open = (name) => loadModel({ kind: "folder", path: at(name) });
const pair = { receiver: await open("receiver"), sharer: await open("sharer") };
const samples = readFileSync(at("questions.jsonl"), "utf8")
  .trim()
  .split("\n")
  .slice(0, BATCH * BATCHES)
  .map((line) => JSON.parse(line))
  .map(({ question, answer }) => ({
    messages: [
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ],
  }));

function sizes(name) {
  const config = JSON.parse(readFileSync(join(at(name), "config.json"), "utf8"));
  return {
    layers: config.num_hidden_layers,
    hidden: config.hidden_size,
    intermediate: config.intermediate_size,
    heads: config.num_attention_heads,
    kvHeads: config.num_key_value_heads,
    headDim: config.head_dim ?? config.hidden_size / config.num_attention_heads,
    vocab: config.vocab_size,
    normed: config.model_type === "qwen3",
  };
}

/** The samples as both programs read them: tokens, where the response's section begins, fused rows, the first target. */
async function shape() {
  const reader = { pair, strategy: recipe.align, response: false, maxTokens: 2048 };
  const read = await Promise.all(samples.map((sample) => prepareSample(sample, reader)));
  const rows = read.map(({ receiver, sharer, sections, fused, target }) => ({
    receiver: [...receiver.ids],
    sharer: [...sharer.ids],
    split: sections[0],
    fused: fused.flatMap((one) =>
      Array.from({ length: one.receiver.end - one.receiver.start }, (_, i) => [
        one.receiver.start + i,
        one.sharer.start + i,
      ]),
    ),
    target: target.start,
  }));
  const batches = Array.from({ length: BATCHES }, (_, i) => rows.slice(i * BATCH, (i + 1) * BATCH));
  const { hidden, intermediate, layerMap } = recipe;
  return {
    receiver: sizes("receiver"),
    sharer: sizes("sharer"),
    fuser: { hidden, intermediate, layerMap },
    batches,
  };
}

async function own() {
  native().setThreads(Number(values.threads));
  const times = [];
  const cpu = [];
  let loss = 0;
  let began = performance.now();
  let used = process.cpuUsage();
  for await (const event of trainFuser(pair, samples, recipe)) {
    if (event.type === "done") await event.fuser.dispose();
    if (event.type !== "step") continue;
    times.push(performance.now() - began);
    const { user, system } = process.cpuUsage(used);
    cpu.push((user + system) / 1000);
    loss = event.loss;
    began = performance.now();
    used = process.cpuUsage();
  }
  for (const list of [times, cpu]) list.sort((a, b) => a - b);
  const half = times.length >> 1;
  return { best: times[0], median: times[half], bestCpu: cpu[0], medianCpu: cpu[half], loss };
}

const folder = mkdtempSync(join(tmpdir(), "c2c-fuser-step-"));
try {
  const file = join(folder, "shape.json");
  writeFileSync(file, JSON.stringify(await shape()));
  for (let round = 0; round < Number(values.rounds); round++) {
    console.log("cache-to-cache", JSON.stringify(await own()));
    try {
      const args = [join(here, "fuser-step.py"), file, values.threads, values.steps];
      console.log("PyTorch       ", execFileSync(values.python, args, { encoding: "utf8", stdio: "pipe" }).trim());
    } catch (error) {
      const reason = String(error.stderr || error.message);
      console.log(`PyTorch        not there: ${reason.trim().split("\n").at(-1)}`);
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
  for (const model of [pair.receiver, pair.sharer]) await model.dispose();
}
