// One trial in a process of its own: `node bench/trial.mjs '{"suite", "variant", "dtype", "prompts", "models", "threads"}'`.
// Prints one JSON line: [{ prompt, ms, … }]; `runs`: of each run, its time and the read bandwidth before and after it.
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { connect, fuse, loadFuser, loadModel } from "../dist/index.js";
import { readModelConfig } from "../dist/model/config.js";
import { native } from "../dist/native.js";
import { Tokenizer } from "../dist/tokens/tokenizer.js";
import { openReader } from "./floors.mjs";
import { median } from "./median.mjs";
import { warmed } from "./runs.mjs";

const job = JSON.parse(process.argv[2]);
const DECODED = 24;
const MESSAGE = 80; // tokens of the sharer's message in text-to-text
const folder = (path) => ({ kind: "folder", path });
const ids = (count, vocab) => Array.from({ length: count }, (_, i) => (i * 7919 + 13) % vocab);

async function timed(work) {
  const start = performance.now();
  const value = await work();
  return { ms: performance.now() - start, value };
}

const bandwidth = ["load", "facade"].includes(job.suite) ? undefined : await openReader(job.threads);

const repeated = (work) => warmed(bandwidth, work);
const quantize = job.variant === "int8" || job.variant === "int4" ? { quantize: job.variant } : {};
const options = { dtype: job.dtype, ...quantize };
const models = {
  receiver: () => loadModel(folder(`${job.models}/receiver-${job.dtype}`), options),
  sharer: () => loadModel(folder(`${job.models}/sharer-${job.dtype}`), { dtype: job.dtype }),
  fuser: (pair, gates) => loadFuser(folder(`${job.models}/fuser-${gates}-${job.dtype}`), pair),
};
const vocabulary = (a, b) => Math.min(a.shape.vocab, b.shape.vocab);

const suites = {
  async fusion() {
    const [receiver, sharer] = [await models.receiver(), await models.sharer()];
    const fuser = await models.fuser({ receiver, sharer }, job.variant);
    const rows = [];
    for (const prompt of job.prompts) {
      const text = ids(prompt + 1, vocabulary(receiver, sharer));
      const cache = await receiver.prefill(receiver.tokens(text));
      const other = await sharer.prefill(sharer.tokens(text));
      const times = await repeated(async () => (await timed(() => fuse(cache, [{ fuser, sharer: other }]))).ms);
      for (const used of [cache, other]) used.dispose();
      rows.push({ prompt, ...times });
    }
    return rows;
  },

  async prefill() {
    const model = await models.receiver();
    const rows = [];
    for (const prompt of job.prompts) {
      const tokens = model.tokens(ids(prompt, model.shape.vocab));
      const times = await repeated(async () => {
        const run = await timed(() => model.prefill(tokens));
        run.value.dispose();
        return run.ms;
      });
      rows.push({ prompt, ...times });
    }
    return rows;
  },

  async decode() {
    const model = await models.receiver();
    const batch = job.variant === "batch8" ? 8 : 1;
    const rows = [];
    for (const prompt of job.prompts) {
      const context = model.tokens(ids(prompt, model.shape.vocab));
      // Per token between the first new one and the last; a batch decodes in step, so its caches are filled beforehand.
      const one = async (cache) => {
        let start = 0;
        let last = 0;
        for await (const event of model.generate(cache, model.tokens([5]), { maxNewTokens: DECODED, eos: [] })) {
          if (event.type !== "token") continue;
          last = performance.now();
          start ||= last;
        }
        return (last - start) / (DECODED - 1);
      };
      // Filled once and cut back after every run: a context of 1,024 tokens takes far longer to fill than to decode behind.
      const caches = [];
      for (let i = 0; i < batch; i++) caches.push(await model.prefill(context));
      const times = await repeated(async () => {
        const each = await Promise.all(caches.map(one));
        for (const cache of caches) cache.truncate(prompt);
        return median(each);
      });
      for (const cache of caches) cache.dispose();
      rows.push({ prompt, ...times, tokensPerSecond: (1000 * batch) / times.ms });
    }
    return rows;
  },

  async channel() {
    const [receiver, sharer] = [await models.receiver(), await models.sharer()];
    const fuser = await models.fuser({ receiver, sharer }, "open");
    const channel = connect(receiver, [{ sharer, fuser }], { prefixes: false });
    const rows = [];
    for (const prompt of job.prompts) {
      const text = ids(prompt, vocabulary(receiver, sharer));
      const first = async (events) => {
        for await (const event of events) if (event.type === "token") return;
      };
      const answer = { maxNewTokens: 1, eos: [] };
      const runs = {
        c2c: () => first(channel.generate({ tokens: receiver.tokens(text) }, answer)),
        text: async () => {
          const read = await sharer.prefill(sharer.tokens(text.slice(0, -1)));
          const written = sharer.generate(read, sharer.tokens(text.slice(-1)), { maxNewTokens: MESSAGE, eos: [] });
          const message = [];
          for await (const event of written) if (event.type === "token") message.push(event.id);
          const whole = [...text.slice(0, -1), ...message.map((id) => id % receiver.shape.vocab)];
          const cache = await receiver.prefill(receiver.tokens(whole));
          await first(receiver.generate(cache, receiver.tokens(text.slice(-1)), answer));
          for (const used of [read, cache]) used.dispose();
        },
      };
      rows.push({ prompt, ...(await repeated(async () => (await timed(runs[job.variant])).ms)) });
    }
    return rows;
  },

  async load() {
    const path = `${job.models}/receiver-${job.dtype}`;
    if (job.variant === "tokenizer") return [{ prompt: 16, ms: (await timed(() => Tokenizer.load(path))).ms }];
    if (job.variant === "weights") {
      const load = await timed(async () => {
        const { spec, table } = await readModelConfig(path);
        return await native().loadModel(spec, table, job.dtype, null, null, null, { kind: "cpu" });
      });
      return [{ prompt: 16, ms: load.ms, bytes: load.value.bytes }];
    }
    const load = await timed(models.receiver);
    const model = load.value;
    // As a user would, from text to text: the vocabulary and the thread that encodes are part of what is resident.
    const text = await model.encodeText("Which of two models answers a question that both of them have read, and why?");
    const cache = await model.prefill(model.tokens(text.slice(0, -1)));
    await model.generate(cache, model.tokens(text.slice(-1)), { maxNewTokens: 4, eos: [] }).text();
    return [
      { prompt: 16, ms: load.ms, bytes: model.bytes, residentOverWeights: process.memoryUsage().rss / model.bytes },
    ];
  },

  async facade() {
    const pair = new URL("../models/pair/receiver", import.meta.url).pathname;
    const model = await loadModel(folder(pair));
    const run = async (count) => {
      const cache = await model.prefill(model.tokens([1, 2, 3]));
      const marks = [];
      for await (const { index } of model.generate(cache, model.tokens([5]), { maxNewTokens: count + 1, eos: [] })) {
        if (index !== 0 && index !== count) continue;
        const { stepMs } = native().info();
        marks.push({ at: performance.now(), stepMs, busy: performance.eventLoopUtilization().active });
      }
      cache.dispose();
      const [first, last] = marks;
      const each = (name) => (last[name] - first[name]) / count;
      return { ms: each("at") - each("stepMs"), busyMs: each("busy") };
    };
    await run(50);
    // The façade's cost is all of a token's wall time in which its step was not being computed (from its first operation to the
    // chosen id): JavaScript, the way to the executor and its waking, the way back and the event loop's waking. Hand-over is what
    // the main thread's busy time leaves of that, so that both together miss nothing; where JavaScript runs beside a step it counts
    // as busy and not as hand-over.
    const runs = [];
    for (let i = 0; i < 9; i++) runs.push(await run(200));
    const { ms, busyMs } = runs.toSorted((a, b) => a.ms - b.ms)[runs.length >> 1];
    const large = await models.receiver();
    const delay = monitorEventLoopDelay({ resolution: 1 });
    const cache = await large.prefill(large.tokens(ids(64, large.shape.vocab)));
    delay.enable();
    await large.generate(cache, large.tokens([5]), { maxNewTokens: 48, eos: [] }).done();
    delay.disable();
    // The monitor's own resolution is part of what it reports.
    return [{ prompt: 16, ms, busyMs, handOverMs: ms - busyMs, loopDelayP99Ms: delay.percentile(99) / 1e6 - 1 }];
  },
};

const rows = await suites[job.suite]();
console.log(JSON.stringify(rows));
process.exit(0);
