// The bench: every suite, its hardware floor and its peers in one run.
//   node bench/run.mjs [--suite NAME,…] [--dtype bfloat16,float32] [--prompts 16,64,256,1024] [--trials 3] [--threads 2]
//     [--variant NAME,…] [--models FOLDER] [--python PYTHON] [--llama FOLDER] [--onnx FOLDER] [--reference FOLDER] [--out FOLDER]
//     [--json]
// Peers run where they are given: --python has torch and transformers (and gguf, onnx), --llama and --onnx are folders where
// node-llama-cpp and onnxruntime-node are installed, --reference is a clone of the public C2C code. `--json` prints the rows on
// the last line.
// After each suite and dtype its rows (SUITE-DTYPE.json) and chart (SUITE-DTYPE.svg) are written, so that a run cut short keeps
// what it measured.
import { execFile } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { against, alike, join as joinMeasures, measure, program } from "./floors.mjs";
import { median } from "./median.mjs";
import { ensureModels } from "./models.mjs";
import { findPeer } from "./peers/index.mjs";
import { charts, table } from "./report.mjs";
import { suites } from "./suites.mjs";

const execute = promisify(execFile);
const home = fileURLToPath(new URL("..", import.meta.url));
const { values: given } = parseArgs({
  options: {
    suite: { type: "string" },
    variant: { type: "string" },
    dtype: { type: "string" },
    prompts: { type: "string", default: "16,64,256,1024" },
    trials: { type: "string", default: "3" },
    threads: { type: "string", default: "2" },
    models: { type: "string", default: join(tmpdir(), "cache-to-cache-bench") },
    python: { type: "string" },
    llama: { type: "string" },
    onnx: { type: "string" },
    reference: { type: "string" },
    out: { type: "string", default: join(home, "bench/results") },
    json: { type: "boolean", default: false },
  },
});
const list = (text, all) => (text === undefined ? all : text.split(","));
const say = (text) => process.stderr.write(`${text}\n`);
const threads = Number(given.threads);
const wanted = list(given.suite, Object.keys(suites));
const unknown = wanted.find((name) => !suites[name]);
if (unknown) throw new Error(`no suite ${unknown}: there are ${Object.keys(suites).join(", ")}`);
const env = { ...process.env, OMP_NUM_THREADS: given.threads, MKL_NUM_THREADS: given.threads };

/** One process, one trial: rows of { prompt, ms, … }, or the reason why there are none. */
async function trial(command, args) {
  try {
    const { stdout } = await execute(command, args, { cwd: home, env, maxBuffer: 1 << 26, timeout: 900_000 });
    return { rows: JSON.parse(stdout.trim().split("\n").at(-1)) };
  } catch (error) {
    return {
      failed: String(error.stderr || error.message)
        .trim()
        .split("\n")
        .at(-1)
        .slice(0, 300),
    };
  }
}

/** Variants of one suite and dtype with their peers, trial by trial in turns: A B A B. */
async function compare(name, dtype) {
  const suite = suites[name];
  const prompts = suite.prompts ?? given.prompts.split(",").map(Number);
  const job = { suite: name, dtype, prompts, models: given.models, threads, reader: program };
  const runs = [];
  const measures = [];
  const notes = [];
  const variants = list(given.variant, suite.variants);
  for (const variant of suite.variants.filter((v) => variants.includes(v) && suite.dtypes(v).includes(dtype))) {
    const args = [join(home, "bench/trial.mjs"), JSON.stringify({ ...job, variant })];
    runs.push({ variant, command: process.execPath, args, trials: [] });
    for (const peer of suite.peers(variant, dtype)) {
      const found = await findPeer(peer, { ...job, variant }, given);
      if (found.missing) notes.push(`${peer}: ${found.missing}`);
      else runs.push({ ...found, variant, peer, trials: [] });
    }
  }
  for (let i = 0; i < Number(given.trials); i++) {
    measures.push(measure(threads));
    for (const run of runs) {
      if (run.failed) continue;
      say(`${name} ${dtype} ${run.variant}${run.peer ? ` (${run.peer})` : ""} ${i + 1}/${given.trials}`);
      const result = await trial(run.command, run.args);
      if (result.failed) run.failed = result.failed;
      else run.trials.push(result.rows);
    }
  }
  measures.push(measure(threads));
  for (const run of runs.filter((r) => r.failed))
    notes.push(`${name} ${dtype} ${run.variant}${run.peer ? ` (${run.peer})` : ""} failed: ${run.failed}`);
  return { name, dtype, runs, machine: joinMeasures(measures), notes };
}

/** The rows of one comparison: medians over trials, spread, floor and peers. */
function rowsOf({ name, dtype, runs, machine }) {
  const at = (run, prompt) => run.trials.map((rows) => rows.find((row) => row.prompt === prompt)).filter(Boolean);
  const allRuns = (rows) => rows.flatMap((row) => row.runs ?? []);
  return runs
    .filter((run) => !run.peer && run.trials.length > 0)
    .flatMap((run) =>
      run.trials[0].map(({ prompt }) => {
        const found = at(run, prompt);
        const { ms: _, prompt: __, runs: ___, ...more } = found[0];
        const times = found.map((row) => row.ms);
        const ms = median(times);
        const floorOf = (state) => suites[name].floor(state, { variant: run.variant, dtype, prompt }, found[0]);
        const own = against(floorOf, machine, ms, allRuns(found));
        const peers = {};
        for (const peer of runs.filter((r) => r.peer && r.variant === run.variant && r.trials.length > 0)) {
          const rows = at(peer, prompt);
          const other = median(rows.map((row) => row.ms));
          const level = alike(allRuns(found), allRuns(rows));
          peers[peer.peer] = { ms: other, ratio: other / ms, ...level, version: peer.version, runs: allRuns(rows) };
        }
        const spread = { min: Math.min(...times), max: Math.max(...times), trials: times.length };
        return {
          suite: name,
          variant: run.variant,
          dtype,
          prompt,
          ms,
          ...spread,
          ...own,
          peers,
          runs: allRuns(found),
          ...more,
        };
      }),
    );
}

mkdirSync(given.out, { recursive: true });
const rows = [];
for (const dtype of list(given.dtype, ["bfloat16", "float32"])) {
  await ensureModels(given.models, dtype);
  for (const name of wanted.filter((n) => suites[n].variants.some((v) => suites[n].dtypes(v).includes(dtype)))) {
    const compared = await compare(name, dtype);
    const { machine, notes } = compared;
    const found = rowsOf(compared);
    rows.push(...found);
    for (const [file, svg] of charts(found)) writeFileSync(join(given.out, file), svg);
    const result = { cpu: cpus()[0].model, trials: Number(given.trials), machine, rows: found, notes };
    writeFileSync(join(given.out, `${name}-${dtype}.json`), `${JSON.stringify(result, null, 1)}\n`);
    say(table(found, machine, [...new Set(notes)]));
  }
}
if (given.json) console.log(JSON.stringify(rows));
if (rows.length === 0) process.exitCode = 1;
