// Text without end on a fixed cache: memory and time per token must not grow.
//   node bench/stream.mjs [--tokens 20000] [--capacity 512] [--evict N] [--model FOLDER] [--bound 1.2]
// Prints a row for every twentieth of the tokens; the last line is "N passed, N failed".
import { dirname, join } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { loadModel } from "../dist/index.js";
import { median } from "./median.mjs";

const { values } = parseArgs({
  options: {
    tokens: { type: "string", default: "20000" },
    capacity: { type: "string", default: "512" },
    evict: { type: "string" },
    model: { type: "string", default: join(dirname(dirname(fileURLToPath(import.meta.url))), "models/pair/receiver") },
    bound: { type: "string", default: "1.2" },
  },
});
const MIB = 2 ** 20;
const total = Number(values.tokens);
const capacity = Number(values.capacity);

const model = await loadModel({ kind: "folder", path: values.model });
const policy = { kind: "sinks", ...(values.evict && { evict: Number(values.evict) }) };
const cache = model.cache({ capacity, policy });
const { bytes } = cache;
const times = [];
const sizes = [];
const failures = [];
let full = 0; // the token at which the cache was full first
let since = performance.now();
let piece = [];
const every = Math.ceil(total / 20);
const sampling = { kind: "sample", temperature: 1, seed: 1n };
for await (const event of model.generate(cache, model.tokens([1]), { maxNewTokens: total, eos: [], sampling })) {
  if (event.type !== "token") continue;
  const now = performance.now();
  piece.push(now - since);
  since = now;
  if (cache.length > capacity || cache.bytes !== bytes) failures.push(`${cache.length} rows, ${cache.bytes} bytes`);
  if (full === 0 && cache.length > capacity - (policy.evict ?? capacity / 16)) full = event.index;
  if (piece.length === every || event.index + 1 === total) {
    times.push({ at: event.index + 1, ms: median(piece), mean: piece.reduce((a, b) => a + b) / piece.length });
    sizes.push(process.memoryUsage.rss() / MIB);
    const row = times.at(-1);
    console.log(
      `${String(row.at).padStart(7)} tokens  ${row.ms.toFixed(3)} ms a token (mean ${row.mean.toFixed(3)})  ${sizes.at(-1).toFixed(0)} MiB resident`,
    );
    piece = [];
  }
}
const steady = times.filter(({ at }) => at - every > full);
const [early, late] = [steady.slice(0, 3), steady.slice(-3)].map((rows) => median(rows.map(({ ms }) => ms)));
const growth = late / early;
console.log(
  `cache: ${capacity} rows, ${(bytes / MIB).toFixed(2)} MiB; the last tokens take ${growth.toFixed(2)} × the first`,
);
if (!(growth <= Number(values.bound))) failures.push(`time per token grew by ${growth.toFixed(2)} ×`);
if (times.at(-1)?.at !== total) failures.push(`${times.at(-1)?.at} of ${total} tokens`);
for (const failure of failures.slice(0, 5)) console.log(`FAILED ${failure}`);
console.log(`${failures.length === 0 ? 3 : 3 - Math.min(3, failures.length)} passed, ${failures.length} failed`);
cache.dispose();
await model.dispose();
process.exitCode = failures.length > 0 ? 1 : 0;
