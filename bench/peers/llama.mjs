// llama.cpp through node-llama-cpp, its own binaries: prefill and decode of the receiver's GGUF file.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { openReader } from "../floors.mjs";
import { inTurns } from "../runs.mjs";

const job = JSON.parse(process.argv[2]);
const DECODED = 24;
const entry = createRequire(join(job.folder, "package.json")).resolve("node-llama-cpp");
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(entry).href);
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: job.file });
const bandwidth = await openReader(job.threads);
const ids = (count) => Array.from({ length: count }, (_, i) => (i * 7919 + 13) % 151000);

/** A prompt in a context of so many threads: { prefill, decode, dispose }, of which the first two return milliseconds. */
async function open(threads, prompt) {
  const context = await model.createContext({ contextSize: prompt + 64, batchSize: Math.max(prompt, 64), threads });
  const sequence = context.getSequence();
  const prefill = async () => {
    await sequence.clearHistory(); // else the prefix is reused
    const start = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(ids(prompt));
    return performance.now() - start;
  };
  const decode = async () => {
    let first = 0;
    let count = 0;
    for await (const _ of sequence.evaluate([5], { temperature: 0 })) {
      first ||= performance.now();
      if (count++ === DECODED) break;
    }
    const ms = (performance.now() - first) / DECODED;
    // Back to the prompt: what was decoded is forgotten, the prompt is not filled again.
    await sequence.eraseContextTokenRanges([{ start: prompt, end: sequence.nextTokenIndex }]);
    if (sequence.nextTokenIndex !== prompt) throw new Error(`${sequence.nextTokenIndex} rows instead of ${prompt}`);
    return ms;
  };
  await prefill();
  return { prefill, decode, dispose: () => context.dispose() };
}

const rows = [];
for (const prompt of job.prompts) {
  // Its decode with two threads is bimodal: the better of one and two counts.
  const decode = job.suite === "decode";
  const contexts = [];
  for (const threads of decode && job.threads > 1 ? [1, job.threads] : [job.threads])
    contexts.push(await open(threads, prompt));
  const works = contexts.map((context) => (decode ? context.decode : context.prefill));
  for (const work of decode ? works : []) await work();
  const found = await inTurns(bandwidth, decode ? 5 : prompt > 256 ? 2 : 4, works);
  for (const context of contexts) await context.dispose();
  rows.push({ prompt, ...found.toSorted((a, b) => a.ms - b.ms)[0] });
}
console.log(JSON.stringify(rows));
process.exit(0);
