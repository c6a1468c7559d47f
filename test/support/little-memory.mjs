// Asks for caches of 1 GB while the system has only 300 MB more to give, then answers all the same. Prints one JSON object.
//   node little-memory.mjs MODEL
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { loadModel } from "../../dist/index.js";

const MIB = 2 ** 20;
const model = await loadModel({ kind: "folder", path: process.argv[2] });
const cache = await model.prefill(model.tokens([5, 6, 7]));
const answer = async (from) => {
  let text = "";
  for await (const event of model.generate(from, model.tokens([8]), { maxNewTokens: 8, eos: [] })) {
    if (event.type === "done") text = event.text;
  }
  return text;
};
const warm = cache.fork();
const expected = await answer(warm);
warm.dispose();

const size = Number(/VmSize:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;
const limited = spawnSync("prlimit", ["--pid", String(process.pid), `--as=${size + 300 * MIB}`], { stdio: "inherit" });
if (limited.status !== 0) throw new Error("prlimit failed");

const one = model.cache({ capacity: 1 });
const capacity = Math.ceil((1024 * MIB) / one.bytes);
one.dispose();
const errors = [];
for (let i = 0; i < 3; i++) {
  try {
    model.cache({ capacity }).dispose();
    errors.push("none");
  } catch (error) {
    errors.push(error.code ?? String(error));
  }
}
const text = await answer(cache);
process.stdout.write(JSON.stringify({ errors, text, longer: cache.length > 3 && text === expected }));
cache.dispose();
await model.dispose();
