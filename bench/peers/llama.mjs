// llama.cpp through node-llama-cpp, its own binaries: prefill and decode of the receiver's GGUF file.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { openReader } from "../floors.mjs";
import { median } from "../median.mjs";
import { repeat } from "../runs.mjs";

const job = JSON.parse(process.argv[2]);
const DECODED = 24;
const entry = createRequire(join(job.folder, "package.json")).resolve("node-llama-cpp");
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(entry).href);
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: job.file });
const bandwidth = await openReader(job.threads);
const ids = (count) => Array.from({ length: count }, (_, i) => (i * 7919 + 13) % 151000);

async function run(threads, prompt) {
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
  if (job.suite === "decode") await decode();
  const found =
    job.suite === "prefill"
      ? await repeat(bandwidth, prompt > 256 ? 2 : 4, prefill)
      : await repeat(bandwidth, 5, decode);
  await context.dispose();
  return found;
}

/** How long it takes for what memory gives at the time. */
const level = ({ runs }) => median(runs.map((run) => run.ms * run.readGBs));

const rows = [];
for (const prompt of job.prompts) {
  // Its decode with two threads is bimodal: the better of one and two counts.
  const counts = job.suite === "decode" && job.threads > 1 ? [1, job.threads] : [job.threads];
  const found = [];
  for (const threads of counts) found.push(await run(threads, prompt));
  rows.push({ prompt, ...found.toSorted((a, b) => level(a) - level(b))[0] });
}
console.log(JSON.stringify(rows));
process.exit(0);
