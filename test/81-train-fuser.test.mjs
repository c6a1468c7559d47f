// trainFuser: what it learns is what a channel computes; runs can be stopped and continued, bit for bit.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { connect, loadFuser, loadModel, trainFuser } from "../dist/index.js";
import { native } from "../dist/native.js";
import { fails } from "./support.mjs";

// Models of this size gain nothing from a second thread.
native().setThreads(1);

const goldens = fileURLToPath(new URL("goldens", import.meta.url));
const home = await mkdtemp(join(tmpdir(), "c2c-train-"));
const load = (name) => loadModel({ kind: "folder", path: join(goldens, "models", name) }, { dtype: "float32" });
const [receiver, qwen2, llama] = await Promise.all(["receiver", "qwen2", "llama"].map(load));
const pair = { receiver, sharer: qwen2 };
test.after(async () => {
  for (const model of [receiver, qwen2, llama]) await model.dispose();
  await rm(home, { recursive: true, force: true });
});

let folders = 0;
const fresh = () => join(home, `run-${folders++}`);
const sample = (question, answer, system) => ({
  messages: [
    ...(system ? [{ role: "system", content: system }] : []),
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ],
});
const samples = [
  sample("What is 2 + 2?", "It is 4."),
  sample("Is the sky blue?", "Yes, the sky is blue."),
  sample("Why?", "Because.", "You are terse."),
  sample("How much do 7 apples cost?", "21 dollars"),
  sample("Say hello.", "hello there"),
  { messages: [...sample("One?", "1").messages, ...sample("And two?", "It is 2").messages] },
];
const shape = { hidden: 12, intermediate: 10, layers: 3 };

async function collect(events) {
  const all = [];
  for await (const event of events) all.push(event);
  return all;
}
const numbers = (events) => events.filter(({ type }) => type === "step").map(({ loss, gradNorm }) => [loss, gradNorm]);

/** Summed loss and number of targets of logits rows against the tokens that follow. */
function crossEntropy(logits, ids) {
  const vocab = receiver.shape.vocab;
  let sum = 0;
  for (const [i, id] of ids.entries()) {
    const row = logits.subarray(i * vocab, (i + 1) * vocab);
    const top = Math.max(...row);
    sum += top + Math.log(row.reduce((total, x) => total + Math.exp(x - top), 0)) - row[id];
  }
  return sum;
}

/** The loss that a channel's own prefill gives for samples, read as training reads them. */
async function channelLoss(fuser, sharer, given, strategy, span) {
  const channel = connect(receiver, [{ sharer, fuser, align: strategy, span }]);
  let sum = 0;
  let count = 0;
  for (const { messages } of given) {
    const whole = await receiver.encode(messages, { generationPrompt: false, thinking: false });
    const prompt = await receiver.encode(messages.slice(0, -1), { thinking: false });
    const aligned = await fuser.align(whole, { strategy });
    const { tokens, positions } = aligned.receiver;
    let start = prompt.tokens.length;
    let sections = [
      { length: start - 1, links: [0] },
      { length: tokens.length - start + 1, links: [] },
    ];
    if (strategy !== "same") {
      // Everything up to the last message but one is fused, its template runs aside.
      const last = aligned.fused.at(-1).receiver;
      start = last.start;
      const ends = aligned.fused.slice(0, -1).map(({ receiver: run }) => run.end);
      sections = [...ends, tokens.length].map((end, i, all) => ({
        length: end - (i === 0 ? 0 : all[i - 1]),
        links: i < ends.length ? [0] : [],
      }));
    }
    const rows =
      strategy === "same"
        ? [{ receiver: { start: 0, end: tokens.length }, sharer: { start: 0, end: tokens.length } }]
        : aligned.fused;
    const { logits, cache } = await channel.prefill({
      tokens,
      positions,
      sections,
      sharers: [{ tokens: aligned.sharer.tokens, positions: aligned.sharer.positions, rows }],
    });
    cache.dispose();
    const first = tokens.length - sections.at(-1).length;
    const own = logits.subarray((start - 1 - first) * receiver.shape.vocab);
    sum += crossEntropy(own, [...tokens.slice(start)]);
    count += tokens.length - start;
  }
  channel.dispose();
  return sum / count;
}

for (const [sharer, align, span] of [
  [qwen2, "same", "prompt"],
  [llama, "first", "prompt"],
  [qwen2, "same", "prompt-and-response"],
]) {
  test(`what is trained is what a channel computes: ${align}, ${span}`, async () => {
    const recipe = {
      ...shape,
      align,
      span,
      learningRate: 2e-2,
      weightDecay: 0,
      batchSize: 3,
      accumulate: 2,
      maxSteps: 12,
      warmupRatio: 0,
      validateEvery: 12,
      seed: 5n,
    };
    const events = await collect(trainFuser({ receiver, sharer }, samples, recipe, { validation: samples }));
    assert.is(events.length, 14);
    const [first] = events;
    const { fuser } = events.at(-1);
    const validation = events.at(-2);
    assert.equal([first.step, first.learningRate, first.temperature, first.skipped], [0, 2e-2, 1, 0]);
    assert.ok(validation.loss < first.loss - 0.5, `learns: ${first.loss} to ${validation.loss}`);
    assert.ok(events.at(-3).openGates > 0, "gates are open");
    const loss = await channelLoss(fuser, sharer, samples, align, span);
    assert.ok(Math.abs(loss - validation.loss) < 1e-4, `${loss} by the channel, ${validation.loss} in training`);

    const path = fresh();
    await fuser.save(path);
    await fuser.dispose();
    const again = await loadFuser({ kind: "folder", path }, { receiver, sharer });
    const loaded = await channelLoss(again, sharer, samples, align, span);
    assert.ok(Math.abs(loaded - loss) < 1e-6, `saved and loaded, the same: ${loaded}`);
    // Going on from it: the loss begins where it was.
    const more = { align, span, maxSteps: 1, batchSize: 6, accumulate: 1, gumbel: false, dropout: 0, shuffle: false };
    const [next] = await collect(trainFuser({ receiver, sharer }, samples, more, { init: again }));
    assert.ok(Math.abs(next.loss - loss) < 1e-4, `continues at ${next.loss}`);
    await again.dispose();
  });
}

test("recompute changes nothing but memory", async () => {
  const recipe = {
    ...shape,
    span: "prompt-and-response",
    batchSize: 3,
    accumulate: 1,
    maxSteps: 4,
    learningRate: 1e-2,
  };
  const plain = await collect(trainFuser(pair, samples, recipe));
  const again = await collect(trainFuser(pair, samples, { ...recipe, recompute: true }));
  assert.equal(numbers(again), numbers(plain));
});

test("bfloat16 computes about the same, with float32 weights", async () => {
  const recipe = { ...shape, batchSize: 6, accumulate: 1, maxSteps: 2, learningRate: 1e-2, dropout: 0, shuffle: false };
  const wide = numbers(await collect(trainFuser(pair, samples, recipe)));
  const narrow = numbers(await collect(trainFuser(pair, samples, { ...recipe, dtype: "bfloat16" })));
  assert.ok(Math.abs(wide[1][0] / narrow[1][0] - 1) < 0.02, `${wide} ${narrow}`);
});

test("every kind trains", async () => {
  const kinds = [
    ["AblationProjector", { ablation_level: 1 }],
    ["AblationProjector", { ablation_level: 3 }],
    ["AllInOneProjector", { scalar_temperature: 1 }],
    ["AllInOneProjector", { gate_granularity: "head", gate_depends_on_input: true, scalar_temperature: 1 }],
  ];
  for (const [kind, options] of kinds) {
    const recipe = {
      hidden: 12,
      projector: { kind, options },
      batchSize: 6,
      accumulate: 1,
      maxSteps: 12,
      learningRate: 2e-2,
      dropout: 0,
      warmupRatio: 0,
    };
    const events = await collect(trainFuser(pair, samples, recipe));
    const losses = numbers(events).map(([loss]) => loss);
    assert.ok(losses.at(-1) < losses[0], `${kind}: ${losses[0]} to ${losses.at(-1)}`);
    assert.is(events.at(-1).fuser.kind, kind === "AllInOneProjector" ? "all-in-one" : "ablation");
  }
});

test("some layers only", async () => {
  const layers = receiver.shape.layers;
  const layerMap = Array.from({ length: layers }, (_, i) => (i === layers - 1 ? 0 : null));
  const events = await collect(trainFuser(pair, samples, { ...shape, layerMap, maxSteps: 1, batchSize: 2 }));
  assert.equal(events.at(-1).fuser.layerMap, layerMap);
});

test("a stopped run continues bit for bit", async () => {
  const recipe = {
    ...shape,
    batchSize: 2,
    accumulate: 2,
    maxSteps: 8,
    learningRate: 1e-2,
    checkpointEvery: 3,
    validateEvery: 4,
  };
  const whole = fresh();
  const straight = await collect(trainFuser(pair, samples, recipe, { folder: whole, validation: samples }));
  const folder = fresh();
  const abort = new AbortController();
  const reason = new Error("enough");
  try {
    for await (const event of trainFuser(pair, samples, recipe, { folder, signal: abort.signal }))
      if (event.type === "step" && event.step === 6) abort.abort(reason);
    assert.unreachable("the abort is thrown");
  } catch (error) {
    assert.is(error, reason);
  }
  assert.equal(await readdir(folder), ["checkpoint-7"]);
  const half = await loadFuser({ kind: "folder", path: folder }, pair);
  assert.is(half.kind, "c2c", "a checkpoint is a fuser");
  await half.dispose();
  await fails(collect(trainFuser(pair, samples, recipe, { folder })), "OPTION_INVALID", /unfinished/);
  await fails(
    collect(trainFuser(pair, samples, { ...recipe, seed: 1n }, { folder, resume: true })),
    "OPTION_INVALID",
    /seed/,
  );
  const after = await collect(trainFuser(pair, samples, recipe, { folder, resume: true, validation: samples }));
  assert.equal(numbers(after), numbers(straight).slice(7));
  assert.is(after.at(-2).loss, straight.at(-2).loss, "the same validation loss");
  const file = (run) => readFile(join(run, "final/fuser.safetensors"));
  assert.ok((await file(folder)).equals(await file(whole)), "the same weights");
  assert.equal((await readdir(folder)).sort(), ["final", "train.json"]);
  const [again] = await collect(trainFuser(pair, samples, recipe, { folder, resume: true }));
  assert.is(again.type, "done");
});

test("a killed run loses at most the steps since its checkpoint", async () => {
  const folder = fresh();
  const recipe = { ...shape, batchSize: 1, accumulate: 1, maxSteps: 500, learningRate: 1e-3, checkpointEvery: 4 };
  const program = join(home, "child.mjs");
  await writeFile(
    program,
    `import { loadModel, trainFuser } from ${JSON.stringify(new URL("../dist/index.js", import.meta.url).href)};
    const load = (name) => loadModel({ kind: "folder", path: ${JSON.stringify(join(goldens, "models"))} + "/" + name }, { dtype: "float32" });
    const pair = { receiver: await load("receiver"), sharer: await load("qwen2") };
    for await (const { type, step } of trainFuser(pair, ${JSON.stringify(samples)}, ${JSON.stringify(recipe)}, { folder: process.argv[2] }))
      process.stdout.write(type + " " + step + "\\n");`,
  );
  const child = spawn(process.execPath, [program, folder], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.setEncoding("utf8");
  for await (const chunk of child.stdout) {
    text += chunk;
    if (text.includes("checkpoint 8\n")) child.kill("SIGKILL");
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  const reached = Math.max(...[...text.matchAll(/^step (\d+)$/gm)].map(([, step]) => Number(step)));
  assert.ok(reached < 499, "it was killed before its end");
  for await (const event of trainFuser(pair, samples, recipe, { folder, resume: true })) {
    assert.ok(
      event.step >= reached - 4 && event.step <= reached + 1,
      `continues at ${event.step}, it had reached ${reached}`,
    );
    break;
  }
  assert.equal(
    (await readdir(folder)).filter((name) => name.endsWith(".tmp")),
    [],
  );
});

test("data is pulled one batch ahead, no more; an abort does not wait for it", async () => {
  let pulled = 0;
  let closed = false;
  async function* counted() {
    try {
      for (;;) {
        pulled += 1;
        yield samples[pulled % samples.length];
      }
    } finally {
      closed = true;
    }
  }
  const recipe = { ...shape, batchSize: 2, accumulate: 1, maxSteps: 9 };
  for await (const event of trainFuser(pair, counted(), recipe)) {
    assert.ok(pulled <= (event.step + 2) * 2, `${pulled} pulled at step ${event.step}`);
    if (event.step === 2) break;
  }
  assert.ok(closed, "the data is told that no more is wanted");
  async function* stuck() {
    yield samples[0];
    await new Promise(() => {});
  }
  const stop = new AbortController();
  const reason = new Error("enough");
  setTimeout(() => stop.abort(reason), 300);
  try {
    await collect(trainFuser(pair, stuck(), recipe, { signal: stop.signal }));
    assert.unreachable("the abort is thrown");
  } catch (error) {
    assert.is(error, reason);
  }
  await fails(collect(trainFuser(pair, counted(), shape)), "OPTION_INVALID", /maxSteps/);
});

test("the order of samples is the seed's", async () => {
  const seen = async (recipe, data) => {
    const order = [];
    const watched = data.map((one, i) => ({
      get messages() {
        order.push(i);
        return one.messages;
      },
    }));
    await collect(trainFuser(pair, watched, { ...shape, batchSize: 6, accumulate: 1, maxSteps: 2, ...recipe }));
    return order.join("");
  };
  const plain = await seen({ shuffle: false }, samples);
  assert.is(plain, "012345012345");
  const one = await seen({ seed: 1n }, samples);
  assert.is(await seen({ seed: 1n }, samples), one);
  assert.is.not(one, plain);
  assert.is.not(await seen({ seed: 2n }, samples), one);
  assert.equal([...one.slice(0, 6)].sort().join(""), "012345", "every sample once a pass");
});

test("the sharer may read something else, as long", async () => {
  const recipe = { ...shape, batchSize: 1, accumulate: 1, maxSteps: 1, dropout: 0, seed: 3n };
  const question = (content) => [{ role: "user", content }];
  for (const [sharer, align] of [
    [qwen2, "same"],
    [llama, "first"],
  ]) {
    const both = { receiver, sharer };
    const loss = async (sharerMessages) => {
      const one = {
        messages: sample("What is 2 + 2?", "It is 4.").messages,
        ...(sharerMessages && { sharerMessages }),
      };
      return (await collect(trainFuser(both, [one], { ...recipe, align })))[0].loss;
    };
    const own = await loss();
    assert.is(await loss(question("What is 2 + 2?")), own, "the same question by itself");
    assert.is.not(await loss(question("What is 7 + 7?")), own, "another one");
    await fails(loss(question("What is 2 + 2 + 2 + 2?")), "OPTION_INVALID", /sharerMessages/);
  }
});

test("what cannot be trained is refused", async () => {
  const attempt = (recipe, data = samples, options = {}) =>
    collect(trainFuser(pair, data, { ...shape, maxSteps: 1, ...recipe }, options));
  await fails(attempt({ learningRate: Number.NaN }), "OPTION_INVALID", /learningRate/);
  await fails(attempt({ layerMap: [0] }), "OPTION_INVALID", /layerMap/);
  await fails(attempt({ layers: 2 }), "OPTION_INVALID", /num_layers/);
  await fails(attempt({ dropout: 1 }), "OPTION_INVALID", /dropout/);
  await fails(attempt({ temperature: { initial: 0, final: 1 } }), "OPTION_INVALID", /temperature/);
  await fails(attempt({ projector: { kind: "Other", options: {} } }), "UNSUPPORTED", /Other/);
  await fails(attempt({}, [{ messages: [{ role: "user", content: "x" }] }]), "OPTION_INVALID", /assistant/);
  await fails(attempt({}, []), "OPTION_INVALID", /holds nothing/);
  await fails(attempt({}, samples, { resume: true }), "OPTION_INVALID", /folder/);
  await fails(attempt({ maxTokens: 3 }), "OPTION_INVALID", /maxTokens/);
});

test.run();
