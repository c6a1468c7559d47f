// Decode of two builds of this package side by side: one model whose time goes into attention, a long context, runs in turn.
//   node bench/builds.mjs OTHER [--context 2048] [--rounds 7] [--dtype bfloat16] [--bound 3]
// OTHER: the folder of another build. Prints both medians and their ratio; the last line is "N passed, N failed" (slower by `bound`
// per cent at most). Beside them, in this build alone: the same decode on a fork, whose rows lie in two segments.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { median } from "./median.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    context: { type: "string", default: "2048" },
    rounds: { type: "string", default: "7" },
    dtype: { type: "string", default: "bfloat16" },
    bound: { type: "string", default: "3" },
    trial: { type: "string" },
  },
});
const self = fileURLToPath(import.meta.url);
const home = dirname(dirname(self));

async function trial(build, model, context, forked) {
  const { loadModel } = await import(pathToFileURL(join(build, "dist/index.js")).href);
  const loaded = await loadModel({ kind: "folder", path: model });
  const tokens = loaded.tokens(Array.from({ length: context }, (_, i) => (i * 7919 + 13) % loaded.shape.vocab));
  const base = await loaded.prefill(tokens);
  const cache = forked ? base.fork() : base;
  if (forked) await loaded.prefill(loaded.tokens([3]), { into: base });
  const times = [];
  let since = 0;
  for await (const event of loaded.generate(cache, loaded.tokens([5]), { maxNewTokens: 200, eos: [] })) {
    if (event.type !== "token") continue;
    const now = performance.now();
    if (since > 0) times.push(now - since);
    since = now;
  }
  process.stdout.write(`${times.toSorted((a, b) => a - b)[Math.floor(times.length / 4)]}\n`);
}

async function compare(other) {
  const { configs, writeModel } = await import("./models.mjs");
  const folder = mkdtempSync(join(tmpdir(), "cache-to-cache-builds-"));
  const failures = [];
  try {
    const model = join(folder, "model");
    mkdirSync(model);
    const small = { vocab_size: 4096, num_hidden_layers: 6, hidden_size: 256, intermediate_size: 256 };
    await writeModel(model, { ...configs.receiver, ...small }, "receiver", values.dtype);
    const variants = { before: [other, false], now: [home, false], "now, on a fork": [home, true] };
    const times = Object.fromEntries(Object.keys(variants).map((name) => [name, []]));
    for (let round = 0; round < Number(values.rounds); round++)
      for (const [name, [build, forked]] of Object.entries(variants)) {
        const job = JSON.stringify([build, model, Number(values.context), forked]);
        times[name].push(Number(execFileSync(process.execPath, [self, "--trial", job], { encoding: "utf8" })));
      }
    const before = median(times.before);
    for (const [name, list] of Object.entries(times)) {
      const spread = `${Math.min(...list).toFixed(3)}–${Math.max(...list).toFixed(3)}`;
      console.log(
        `${name.padEnd(15)} ${median(list).toFixed(3)} ms a token (${spread}), ${(median(list) / before).toFixed(3)} × before`,
      );
    }
    const slower = 100 * (median(times.now) / before - 1);
    if (slower > Number(values.bound)) failures.push(`slower by ${slower.toFixed(1)} %`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  for (const failure of failures) console.log(`FAILED ${failure}`);
  console.log(`${1 - failures.length} passed, ${failures.length} failed`);
  process.exitCode = failures.length;
}

if (values.trial) await trial(...JSON.parse(values.trial));
else if (positionals.length === 1) await compare(resolve(positionals[0]));
else throw new Error("name the folder of another build");
