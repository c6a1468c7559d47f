// Prefill, fusion and decode of the embedded pair: `node bench/pair.mjs [--json]`. Medians of several runs, in milliseconds.
import { fileURLToPath } from "node:url";
import { fuse, loadFuser, loadModel } from "../dist/index.js";

const RUNS = 9;
const DECODED = 32;
const folder = (name) => ({ kind: "folder", path: fileURLToPath(new URL(`../models/pair/${name}`, import.meta.url)) });
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

async function time(work) {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

const receiver = await loadModel(folder("receiver"));
const sharer = await loadModel(folder("sharer"));
const fuser = await loadFuser(folder("fuser"), { receiver, sharer });
const rows = [];
for (const prompt of [16, 64, 256, 1024]) {
  const ids = Array.from({ length: prompt }, (_, i) => (i * 7) % 1000);
  const times = { prefill: [], fusion: [], decode: [] };
  for (let run = 0; run <= RUNS; run++) {
    let cache;
    const prefill = await time(async () => {
      cache = await receiver.prefill(receiver.tokens(ids));
    });
    const other = await sharer.prefill(sharer.tokens(ids));
    const fusion = await time(() => fuse(cache, [{ fuser, sharer: other }]));
    const options = { maxNewTokens: DECODED, eos: [] };
    const decode = (await time(() => receiver.generate(cache, receiver.tokens([5]), options).done())) / DECODED;
    cache.dispose();
    other.dispose();
    if (run === 0) continue; // the first run warms up
    times.prefill.push(prefill);
    times.fusion.push(fusion);
    times.decode.push(decode);
  }
  for (const [suite, values] of Object.entries(times)) {
    rows.push({ suite, dtype: "float32", prompt, ms: median(values), min: values[0], max: values.at(-1) });
  }
}
if (process.argv.includes("--json")) console.log(JSON.stringify(rows));
else console.table(rows.map((r) => ({ ...r, ms: r.ms.toFixed(2), min: r.min.toFixed(2), max: r.max.toFixed(2) })));
for (const handle of [fuser, sharer, receiver]) await handle.dispose();
