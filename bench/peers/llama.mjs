// llama.cpp through node-llama-cpp, its own binaries: prefill and decode of the receiver's GGUF file.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { median } from "../median.mjs";

const job = JSON.parse(process.argv[2]);
const DECODED = 24;
const entry = createRequire(join(job.folder, "package.json")).resolve("node-llama-cpp");
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(entry).href);
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: job.file });
const ids = (count) => Array.from({ length: count }, (_, i) => (i * 7919 + 13) % 151000);

async function run(threads, prompt) {
  const context = await model.createContext({ contextSize: prompt + 64, batchSize: Math.max(prompt, 64), threads });
  const sequence = context.getSequence();
  const times = [];
  if (job.suite === "prefill")
    for (let i = 0; i < (prompt > 256 ? 3 : 5); i++) {
      await sequence.clearHistory(); // else the prefix is reused
      const start = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens(ids(prompt));
      times.push(performance.now() - start);
    }
  else {
    await sequence.evaluateWithoutGeneratingNewTokens(ids(prompt));
    for (let i = 0; i < 6; i++) {
      let first = 0;
      let count = 0;
      for await (const _ of sequence.evaluate([5], { temperature: 0 })) {
        first ||= performance.now();
        if (count++ === DECODED) break;
      }
      times.push((performance.now() - first) / DECODED);
      // Back to the prompt: what was decoded is forgotten, the prompt is not filled again.
      await sequence.eraseContextTokenRanges([{ start: prompt, end: sequence.nextTokenIndex }]);
      if (sequence.nextTokenIndex !== prompt) throw new Error(`${sequence.nextTokenIndex} rows instead of ${prompt}`);
    }
  }
  await context.dispose();
  return median(times.slice(1));
}

const rows = [];
for (const prompt of job.prompts) {
  // Its decode with two threads is bimodal: the better of one and two counts.
  const counts = job.suite === "decode" && job.threads > 1 ? [1, job.threads] : [job.threads];
  const times = [];
  for (const threads of counts) times.push(await run(threads, prompt));
  rows.push({ prompt, ms: Math.min(...times) });
}
console.log(JSON.stringify(rows));
process.exit(0);
