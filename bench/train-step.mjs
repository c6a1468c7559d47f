// One training step at the embedded pair's size, beside the same step in eager PyTorch where Python has one. Milliseconds of the
// clock and of the processor (all threads): on a busy machine the second says more.
//   node bench/train-step.mjs [--threads N] [--steps N] [--python PROGRAM]
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { trainModel } from "../dist/index.js";
import { native } from "../dist/native.js";

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
const config = {
  model_type: "qwen3",
  hidden_size: 112,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  head_dim: 24,
  num_hidden_layers: 4,
  intermediate_size: 304,
  vocab_size: 1108,
  max_position_embeddings: 256,
  tie_word_embeddings: true,
  rope_theta: 10000,
};

/** 64 documents of 12 to 40 tokens; two in three are scored on their last two tokens, the others on all. */
let state = 1;
const random = (below) => {
  state = (state * 48271) % 2147483647;
  return state % below;
};
const documents = Array.from({ length: 8 }, () =>
  Array.from({ length: 64 }, (_, i) => {
    const tokens = Array.from({ length: 12 + random(29) }, () => random(1108));
    const all = tokens.map((_, at) => at).slice(1);
    return { tokens, targets: i % 3 === 0 ? all : all.slice(-2) };
  }),
);

async function own(folder) {
  native().setThreads(Number(values.threads));
  const data = documents.flat().map(({ tokens, targets }) => {
    const marks = new Uint8Array(tokens.length);
    for (const at of targets) marks[at] = 1;
    return { tokens: Uint32Array.from(tokens), targets: marks };
  });
  const times = [];
  const cpu = [];
  const losses = [];
  let began = performance.now();
  let used = process.cpuUsage();
  for await (const event of trainModel({ config }, data, { steps, warmupSteps: 0 }, { folder })) {
    if (event.type !== "step") continue;
    times.push(performance.now() - began);
    const { user, system } = process.cpuUsage(used);
    cpu.push((user + system) / 1000);
    losses.push(event.loss);
    began = performance.now();
    used = process.cpuUsage();
  }
  for (const list of [times, cpu]) list.sort((a, b) => a - b);
  return {
    best: times[0],
    median: times[times.length >> 1],
    bestCpu: cpu[0],
    medianCpu: cpu[cpu.length >> 1],
    loss: losses.at(-1),
  };
}

const folder = mkdtempSync(join(tmpdir(), "c2c-train-step-"));
try {
  const shape = join(folder, "shape.json");
  writeFileSync(shape, JSON.stringify({ config, documents }));
  for (let round = 0; round < Number(values.rounds); round++) {
    console.log("cache-to-cache", JSON.stringify(await own(join(folder, String(round)))));
    try {
      const args = [join(here, "train-step.py"), shape, values.threads, values.steps];
      console.log("PyTorch       ", execFileSync(values.python, args, { encoding: "utf8", stdio: "pipe" }).trim());
    } catch (error) {
      console.log(
        `PyTorch        not there: ${String(error.stderr || error.message)
          .trim()
          .split("\n")
          .at(-1)}`,
      );
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
