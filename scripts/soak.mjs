// Load → prefill → fork → fuse → decode → abort at a random moment → dispose, over and over on the embedded pair: nothing may be
// left. Compares resident memory after a warm-up with that after the last cycle; the last line is "N passed, N failed".
//   npm run soak -- [--cycles 2000] [--warm-up 200] [--bound 5] [--seed N]     bound: per cent
// Node's young generation grows with the rate of garbage, keeps what it has taken (16 to 48 MiB of resident memory here) and would
// hide what this looks for: it runs with that of 1 MiB, and with the collector at hand.
// A short run compares values that lie closer to the start, where allocators and compilers still settle: give it a wider bound.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { fuse, loadFuser, loadModel } from "../dist/index.js";
import { liveHandles } from "../dist/testing.js";
import { Random } from "../fuzz/random.mjs";

const { gc } = globalThis;
if (gc === undefined || !process.execArgv.includes("--max-semi-space-size=1"))
  throw new Error("run it by `npm run soak`: it needs --expose-gc and --max-semi-space-size=1");
const MIB = 2 ** 20;
const TOKENS = 16; // decoded in a whole cycle
const { values } = parseArgs({
  options: {
    cycles: { type: "string", default: "2000" },
    "warm-up": { type: "string", default: "200" },
    bound: { type: "string", default: "5" },
    seed: { type: "string" },
  },
});
const cycles = Number(values.cycles);
const warmUp = Number(values["warm-up"]);
const bound = Number(values.bound) / 100;
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
const random = new Random(seed);
const pair = join(dirname(dirname(fileURLToPath(import.meta.url))), "models/pair");
const folder = (name) => ({ kind: "folder", path: join(pair, name) });
const questions = readFileSync(join(pair, "questions.jsonl"), "utf8")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line).question);

/** One life of everything; what was opened is closed whatever happens, in the opposite order. */
async function cycle(signal) {
  const open = [];
  const keep = (handle) => {
    open.push(handle);
    return handle;
  };
  try {
    await live(keep, signal);
  } finally {
    for (const handle of open.reverse()) await handle.dispose();
  }
}

async function live(keep, signal) {
  const receiver = keep(await loadModel(folder("receiver"), { signal }));
  const sharer = keep(await loadModel(folder("sharer"), { signal }));
  const fuser = keep(await loadFuser(folder("fuser"), { receiver, sharer }, { signal }));
  const { receiver: own, sharer: other, fused } = await fuser.align(await receiver.encode(random.pick(questions)));
  const last = own.tokens.length - 1;
  const theirs = keep(await sharer.prefill(other.tokens, { positions: other.positions, signal }));
  const base = keep(
    await receiver.prefill(own.tokens.subarray(0, last), { positions: own.positions.subarray(0, last), signal }),
  );
  const fork = keep(base.fork());
  await fuse(fork, [{ fuser, sharer: theirs, spans: fused }], { signal });
  const sampling = { kind: "sample", temperature: 1, seed: 1n };
  const options = { maxNewTokens: TOKENS, eos: [], signal, sampling };
  let tokens = 0;
  for await (const event of receiver.generate(fork, own.tokens.subarray(last), options))
    tokens += event.type === "token" ? 1 : 0;
  if (tokens !== TOKENS) throw new Error(`${TOKENS} tokens expected, ${tokens} came`);
}

/** Resident bytes once everything that can go has gone. */
async function resident() {
  for (let i = 0; i < 4; i++) {
    gc();
    await new Promise((done) => setImmediate(done));
  }
  return process.memoryUsage.rss();
}

const failures = [];
const check = (ok, what) => ok || failures.push(what);
console.log(`seed ${seed}, ${cycles} cycles`);
let span = 0; // milliseconds of a cycle that ran to its end, roughly
let aborted = 0;
let reference = 0;
const started = performance.now();
for (let i = 1; i <= cycles; i++) {
  const controller = new AbortController();
  const whole = span === 0 || random.oneIn(4);
  const timer = whole ? undefined : setTimeout(() => controller.abort(new Error("soak")), random.next() * span * 1.1);
  const since = performance.now();
  try {
    await cycle(controller.signal);
    if (whole) span = span === 0 ? performance.now() - since : 0.9 * span + 0.1 * (performance.now() - since);
  } catch (error) {
    if (error !== controller.signal.reason) throw error;
    aborted++;
  } finally {
    clearTimeout(timer);
  }
  const { model, fuser, cache } = liveHandles();
  check(model + fuser + cache === 0, `cycle ${i} left ${model} models, ${fuser} fusers, ${cache} caches`);
  if (failures.length > 0) break;
  const every = Math.max(1, Math.floor(cycles / 20));
  if (i === warmUp) reference = await resident();
  if (i % every === 0) {
    const bytes = await resident();
    console.log(`cycle ${i}: ${(bytes / MIB).toFixed(1)} MiB, ${aborted} aborted, ${span.toFixed(0)} ms a whole cycle`);
  }
}
const end = await resident();
const rest = liveHandles();
const growth = end / reference - 1;
console.log(
  `${((performance.now() - started) / 1000).toFixed(0)} s; after cycle ${warmUp}: ${(reference / MIB).toFixed(1)} MiB`,
);
console.log(
  `after cycle ${cycles}: ${(end / MIB).toFixed(1)} MiB, ${(100 * growth).toFixed(1)} % (bound ${100 * bound} %)`,
);
check(growth <= bound, `memory grew by ${(100 * growth).toFixed(1)} %`);
check(
  Object.values(rest).every((count) => count === 0),
  `left after collection: ${JSON.stringify(rest)}`,
);
check(aborted > 0 && aborted < cycles, `${aborted} of ${cycles} cycles were aborted`);
for (const failure of failures) console.log(`FAILED ${failure}`);
console.log(`${failures.length === 0 ? 4 : 4 - Math.min(4, failures.length)} passed, ${failures.length} failed`);
process.exitCode = failures.length > 0 ? 1 : 0;
