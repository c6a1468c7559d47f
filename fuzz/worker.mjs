// One JavaScript target, fuzzed in a process of its own: inputs that reach new blocks of the code under test are kept and
// changed further. The process that started this one hears of every finding and ends it when an input takes too long.
//   node --expose-gc fuzz/worker.mjs TARGET SEED SECONDS FOLDER
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Coverage } from "./coverage.mjs";
import { fault } from "./expect.mjs";
import { Random } from "./random.mjs";

const [name, seed, seconds, folder] = process.argv.slice(2);
const BATCH = 32; // inputs between two looks at the coverage, which costs more than a run
const LIMIT = 16_384; // bytes of an input
const SLOW_MS = 2000; // even a busy machine reads 16 KB in less
const MEMORY = 256 * 2 ** 20; // bytes that one input may cost
const target = await import(`./targets/${name}.mjs`);
const corpus = join(folder, "corpus", name);
const input = join(folder, `${name}.input`);
mkdirSync(corpus, { recursive: true });

/** Runs one input; what is wrong with it, or undefined. */
async function attempt(bytes) {
  writeFileSync(input, bytes);
  const since = performance.now();
  const before = process.memoryUsage.rss();
  let wrong = await fault(target, bytes, input);
  if (performance.now() - since > SLOW_MS) wrong ??= `took ${Math.round(performance.now() - since)} ms`;
  const grown = process.memoryUsage.rss() - before;
  if (grown > MEMORY) wrong ??= `took ${Math.round(grown / 2 ** 20)} MiB`;
  return wrong;
}

function stored(path) {
  return existsSync(path) ? readdirSync(path).map((file) => Uint8Array.from(readFileSync(join(path, file)))) : [];
}

function hash(bytes) {
  return createHash("sha256").update(bytes).digest("hex").slice(0, 16);
}

const coverage = new Coverage(target.watched);
const random = new Random(Number(seed));
const kept = [];
const findings = new Set();
let runs = 0;

/** Runs one input and reports what is wrong with it. */
async function consider(bytes) {
  runs++;
  const wrong = await attempt(bytes);
  // The same place in the code is one finding, however many inputs lead there.
  const place = wrong?.split("\n").slice(0, 2).join("\n").replace(/\d+/g, "N");
  if (wrong === undefined || findings.has(place)) return;
  findings.add(place);
  process.send?.({ finding: wrong, input: Buffer.from(bytes).toString("base64") });
}

const end = performance.now() + Number(seconds) * 1000;
const regressions = stored(new URL(`regressions/${name}`, import.meta.url).pathname);
for (const bytes of [...target.seeds(), ...regressions, ...stored(corpus)]) {
  await consider(bytes);
  coverage.single();
  kept.push(bytes);
}
while (performance.now() < end) {
  const batch = Array.from({ length: BATCH }, () => {
    // The newest inputs are the most promising.
    const from = kept[random.oneIn(2) ? Math.max(0, kept.length - 1 - random.below(8)) : random.below(kept.length)];
    return target.mutate(from, random, kept, LIMIT);
  });
  for (const bytes of batch) await consider(bytes);
  if (coverage.batch()) {
    for (const bytes of batch) {
      await consider(bytes);
      if (!coverage.single()) continue;
      kept.push(bytes);
      writeFileSync(join(corpus, hash(bytes)), bytes);
    }
  }
  process.send?.({ runs, covered: coverage.size, kept: kept.length });
}
process.send?.({ runs, covered: coverage.size, kept: kept.length, done: true }, () => process.disconnect());
