// onnxruntime's CPU provider through onnxruntime-node on the graphs of write_onnx.py: prefill, decode, fusion. Inputs are made once;
// outputs are handed out as the package does it, in a copy: for prefill and fusion that is what was asked for.
import { createRequire } from "node:module";
import { join } from "node:path";
import { openReader } from "../floors.mjs";
import { inTurns, warmed } from "../runs.mjs";

const job = JSON.parse(process.argv[2]);
const DECODED = 24;
const { InferenceSession, Tensor } = createRequire(join(job.folder, "package.json"))("onnxruntime-node");
const integers = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);
const count = (value) => new Tensor("int32", Int32Array.of(value), [1]);
const filled = (rows, columns) =>
  Float32Array.from({ length: columns }, (_, i) => (i < rows || i === columns - 1 ? 0 : -1e30));

/** A cache's inputs, shaped as the graph has them; `rows` stands for the dimension that it leaves open. */
function caches(session, rows) {
  const metadata = session.inputMetadata.filter(({ name }) => /(key|value)$/.test(name));
  const made = metadata.map(({ name, shape }) => {
    const sizes = shape.map((size) => (typeof size === "string" ? rows : size));
    const values = new Float32Array(sizes.reduce((a, b) => a * b, 1));
    for (let i = 0; i < values.length; i++) values[i] = ((i * 7919) % 2003) / 1001 - 1;
    return [name, new Tensor("float32", values, sizes)];
  });
  return Object.fromEntries(made);
}

const bandwidth = await openReader(job.threads);
const repeated = (session, feeds) =>
  warmed(bandwidth, async () => {
    const start = performance.now();
    await session.run(feeds);
    return performance.now() - start;
  });

/** Puts a new row, of all layers and heads, into past ones: a head's keys lie [dim, capacity], its values [capacity, dim]. */
function append(past, results, row) {
  const [heads, , dim, capacity] = past["past.0.key"].dims;
  const [newKeys, newValues] = [results["new.key"].data, results["new.value"].data];
  for (let at = 0; at < newKeys.length; at += dim) {
    const head = at / dim;
    const start = (head % heads) * dim * capacity;
    const layer = Math.floor(head / heads);
    const keys = past[`past.${layer}.key`].data;
    for (let i = 0; i < dim; i++) keys[start + i * capacity + row] = newKeys[at + i];
    past[`past.${layer}.value`].data.set(newValues.subarray(at, at + dim), start + row * dim);
  }
}

const suites = {
  fusion: (session, prompt) => repeated(session, caches(session, prompt)),

  prefill(session, prompt) {
    const tokens = integers(Array.from({ length: prompt }, (_, i) => (i * 7919 + 13) % 151000));
    return repeated(session, { tokens, last: count(prompt - 1), total: count(prompt) });
  },

  /** Time does not depend on what a cache holds, so any rows stand for a prompt's. */
  async decode(session, prompt) {
    const past = caches(session, prompt + DECODED + 1);
    const columns = prompt + DECODED + 2;
    const mask = new Tensor("float32", filled(prompt, columns), [1, 1, 1, columns]);
    const wanted = ["token", "new.key", "new.value"];
    const [tokens, position] = [integers([5]), integers([prompt])];
    const run = async () => {
      mask.data.set(filled(prompt, columns));
      let start = 0;
      for (let step = 0; step <= DECODED; step++) {
        if (step === 1) start = performance.now();
        position.data[0] = BigInt(prompt + step);
        const results = await session.run({ tokens, position, mask, ...past }, wanted);
        append(past, results, prompt + step);
        mask.data[prompt + step] = 0;
        tokens.data[0] = results.token.data[0];
      }
      return (performance.now() - start) / DECODED;
    };
    await run();
    return (await inTurns(bandwidth, 5, [run]))[0];
  },
};

const session = await InferenceSession.create(job.file, {
  intraOpNumThreads: job.threads,
  interOpNumThreads: 1,
  executionMode: "sequential",
  graphOptimizationLevel: "all",
});
const rows = [];
for (const prompt of job.prompts) rows.push({ prompt, ...(await suites[job.suite](session, prompt)) });
console.log(JSON.stringify(rows));
process.exit(0);
