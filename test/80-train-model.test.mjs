// trainModel: decoders of every family train from scratch and go on; runs can be stopped and continued, bit for bit.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadModel, trainModel } from "../dist/index.js";
import { native } from "../dist/native.js";
import { documentBatch } from "../dist/train/documents.js";
import { linearSchedule } from "../dist/train/schedule.js";
import { fails } from "./support.mjs";

// Models of this size gain nothing from a second thread.
native().setThreads(1);

const pair = fileURLToPath(new URL("../models/pair", import.meta.url));
const goldens = fileURLToPath(new URL("goldens/models", import.meta.url));
const home = await mkdtemp(join(tmpdir(), "c2c-train-"));
test.after(() => rm(home, { recursive: true, force: true }));

let folders = 0;
const fresh = () => join(home, `run-${folders++}`);

// The tokenizer of the pair's receiver is used, so its vocabulary too.
const { vocab_size } = JSON.parse(await readFile(join(pair, "receiver/config.json"), "utf8"));
const config = {
  model_type: "qwen3",
  architectures: ["Qwen3ForCausalLM"],
  hidden_size: 32,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  num_hidden_layers: 2,
  intermediate_size: 48,
  vocab_size,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: true,
};
const init = { config, tokenizer: join(pair, "receiver") };

/** Sequences a, a + 3, a + 6, … of differing lengths: every token follows from the one before. */
function* documents(seed = 1) {
  let state = seed;
  const next = (below) => {
    state = (state * 48271) % 2147483647;
    return state % below;
  };
  for (;;) {
    const first = next(30);
    const tokens = Uint32Array.from({ length: 3 + next(9) }, (_, i) => 40 + ((first + 3 * i) % 30));
    yield { tokens };
  }
}

async function collect(events) {
  const all = [];
  for await (const event of events) all.push(event);
  return all;
}
const steps = (events) => events.filter(({ type }) => type === "step").map(({ loss, gradNorm }) => [loss, gradNorm]);

test("learns, and writes a model that loads and continues", async () => {
  const folder = fresh();
  const recipe = { steps: 60, batchSize: 16, learningRate: 1e-2, warmupSteps: 5, seed: 7n };
  const events = await collect(trainModel(init, documents(), recipe, { folder }));
  assert.is(events.length, 61);
  assert.equal(events.at(-1), { type: "done", folder });
  const losses = events.slice(0, -1).map(({ loss }) => loss);
  assert.ok(losses[0] > 6.5, `begins at chance: ${losses[0]}`);
  assert.ok(losses.at(-1) < 0.5, `learns: ${losses.at(-1)}`);
  assert.equal(
    (await readdir(folder)).filter((name) => name.includes("checkpoint") || name.endsWith(".tmp")),
    [],
  );
  const model = await loadModel({ kind: "folder", path: folder });
  const run = model.generate(model.cache(), model.tokens([45, 48]), { maxNewTokens: 4, eos: [] });
  const ids = [];
  for await (const event of run) if (event.type === "token") ids.push(event.id);
  assert.equal(ids, [51, 54, 57, 60]);
  await model.dispose();

  const more = await collect(
    trainModel({ folder }, documents(5), { ...recipe, steps: 2, warmupSteps: 0 }, { folder: fresh() }),
  );
  assert.ok(more[0].loss < 1, `continues: ${more[0].loss}`);
});

test("every family: the loss is what the model's logits say", async () => {
  for (const name of await readdir(goldens)) {
    const path = join(goldens, name);
    const model = await loadModel({ kind: "folder", path }, { dtype: "float32" });
    const data = [
      { tokens: Uint32Array.from({ length: 23 }, (_, i) => 20 + ((i * 7) % 90)) },
      { tokens: Uint32Array.from([5, 9, 30, 31, 77]), targets: Uint8Array.from([0, 0, 1, 1, 0]) },
      { tokens: Uint32Array.from({ length: 22 }, (_, i) => 21 + ((i * 5) % 80)) },
    ];
    let sum = 0;
    let count = 0;
    for (const { tokens, targets } of data) {
      const logits = await model.logits(model.cache(), model.tokens(tokens));
      const { vocab } = model.shape;
      for (let i = 1; i < tokens.length; i++) {
        if (targets && !targets[i]) continue;
        const row = logits.subarray((i - 1) * vocab, i * vocab);
        const top = Math.max(...row);
        sum += top + Math.log(row.reduce((total, x) => total + Math.exp(x - top), 0)) - row[tokens[i]];
        count += 1;
      }
    }
    await model.dispose();
    for (const more of [{}, { recompute: true }, { dtype: "bfloat16" }]) {
      const recipe = { steps: 2, batchSize: 3, learningRate: 5e-3, warmupSteps: 0, ...more };
      const [first, second] = await collect(trainModel({ folder: path }, data, recipe, { folder: fresh() }));
      const allowed = more.dtype ? 0.02 : 1e-5;
      assert.ok(Math.abs(first.loss / (sum / count) - 1) < allowed, `${name}: ${first.loss}, expected ${sum / count}`);
      assert.ok(second.loss < first.loss, `${name}: the loss falls`);
    }
  }
});

test("recompute changes nothing but memory", async () => {
  const recipe = {
    steps: 4,
    batchSize: 4,
    learningRate: 1e-2,
    warmupSteps: 0,
    earlyExit: { layers: [0], weight: 0.5 },
  };
  const plain = await collect(trainModel(init, documents(), recipe, { folder: fresh() }));
  const again = await collect(trainModel(init, documents(), { ...recipe, recompute: true }, { folder: fresh() }));
  assert.equal(steps(again), steps(plain));
});

test("an early exit adds its share of the loss", async () => {
  const recipe = { steps: 1, batchSize: 8, warmupSteps: 0 };
  const [plain] = await collect(trainModel(init, documents(), recipe, { folder: fresh() }));
  const earlyExit = { layers: [0, 1], weight: 2 };
  const [both] = await collect(trainModel(init, documents(), { ...recipe, earlyExit }, { folder: fresh() }));
  const [first] = await collect(
    trainModel(init, documents(), { ...recipe, earlyExit: { layers: [0], weight: 1 } }, { folder: fresh() }),
  );
  const exit = first.loss - plain.loss;
  assert.ok(
    Math.abs(both.loss - (plain.loss + (2 * (exit + plain.loss)) / 2)) < 1e-4,
    "weight times the mean over blocks",
  );
});

test("a stopped run continues bit for bit", async () => {
  const recipe = { steps: 9, batchSize: 4, learningRate: 1e-2, warmupSteps: 2, checkpointEvery: 3, seed: 3n };
  const whole = fresh();
  const straight = await collect(trainModel(init, documents(), recipe, { folder: whole }));
  const folder = fresh();
  const abort = new AbortController();
  const before = [];
  const reason = new Error("enough");
  try {
    for await (const event of trainModel(init, documents(), recipe, { folder, signal: abort.signal })) {
      before.push(event);
      if (event.step === 7) abort.abort(reason);
    }
    assert.unreachable("the abort is thrown");
  } catch (error) {
    assert.is(error, reason);
  }
  assert.equal(await readdir(folder), ["checkpoint-8"], "an abort leaves what was taken");
  await fails(collect(trainModel(init, documents(), recipe, { folder })), "OPTION_INVALID", /unfinished/);
  const other = { ...recipe, learningRate: 1 };
  await fails(
    collect(trainModel(init, documents(), other, { folder, resume: true })),
    "OPTION_INVALID",
    /learningRate/,
  );
  const checkpoint = await loadModel({ kind: "folder", path: join(folder, "checkpoint-8") });
  assert.is(checkpoint.shape.hidden, 32, "a checkpoint is a model");
  await checkpoint.dispose();
  const after = await collect(trainModel(init, documents(), recipe, { folder, resume: true }));
  assert.equal(steps(after), steps(straight).slice(8));
  const file = (run) => readFile(join(run, "model.safetensors"));
  assert.ok((await file(folder)).equals(await file(whole)), "the same weights");
  assert.equal(await collect(trainModel(init, documents(), recipe, { folder, resume: true })), [
    { type: "done", folder },
  ]);
});

test("a killed run loses at most the steps since its checkpoint", async () => {
  const folder = fresh();
  const recipe = { steps: 400, batchSize: 2, learningRate: 1e-3, warmupSteps: 0, checkpointEvery: 5 };
  const program = join(home, "child.mjs");
  const module = new URL("../dist/index.js", import.meta.url).href;
  await writeFile(
    program,
    `import { trainModel } from ${JSON.stringify(module)};
    ${documents}
    for await (const { type, step } of trainModel(${JSON.stringify(init)}, documents(), ${JSON.stringify(recipe)}, { folder: process.argv[2] }))
      process.stdout.write(type + " " + step + "\\n");`,
  );
  const child = spawn(process.execPath, [program, folder], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.setEncoding("utf8");
  for await (const chunk of child.stdout) {
    text += chunk;
    // In the middle of writing one, more often than not.
    if (text.includes("checkpoint 10\n")) child.kill("SIGKILL");
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  const reached = Math.max(...[...text.matchAll(/^step (\d+)$/gm)].map(([, step]) => Number(step)));
  assert.ok(reached < 399, "it was killed before its end");
  const signal = AbortSignal.timeout(20_000);
  for await (const event of trainModel(init, documents(), recipe, { folder, resume: true, signal })) {
    assert.ok(
      event.step >= reached - 5 && event.step <= reached + 1,
      `continues at ${event.step}, it had reached ${reached}`,
    );
    break;
  }
  assert.equal(
    (await readdir(folder)).filter((name) => name.endsWith(".tmp")),
    [],
    "what was half-written is gone",
  );
});

test("data: pulled one batch at a time, begun again at its end", async () => {
  let pulled = 0;
  let closed = false;
  async function* counted() {
    try {
      for (const document of documents()) {
        pulled += 1;
        yield document;
      }
    } finally {
      closed = true;
    }
  }
  for await (const event of trainModel(init, counted(), { steps: 9, batchSize: 3 }, { folder: fresh() })) {
    assert.ok(pulled <= (event.step + 1) * 3, "no more than the steps so far need");
    if (event.step === 1) break;
  }
  assert.ok(closed, "the data is told that no more is wanted");
  const few = [{ tokens: Uint32Array.of(1, 2, 3) }, { tokens: Uint32Array.of(4, 5) }];
  assert.is((await collect(trainModel(init, few, { steps: 3, batchSize: 3 }, { folder: fresh() }))).length, 4);
  const once = few[Symbol.iterator]();
  await fails(
    collect(trainModel(init, once, { steps: 3, batchSize: 3 }, { folder: fresh() })),
    "OPTION_INVALID",
    /begin again/,
  );
  await fails(collect(trainModel(init, [], { steps: 3 }, { folder: fresh() })), "OPTION_INVALID", /holds nothing/);
});

test("what cannot be trained is refused", async () => {
  const attempt = (recipe, data = documents(), from = init) =>
    collect(trainModel(from, data, { steps: 1, ...recipe }, { folder: fresh() }));
  await fails(attempt({ steps: 0 }), "OPTION_INVALID", /steps/);
  await fails(attempt({ learningRate: -1 }), "OPTION_INVALID", /learningRate/);
  await fails(attempt({ earlyExit: { layers: [2], weight: 1 } }), "OPTION_INVALID", /earlyExit/);
  await fails(attempt({ dtype: "float16" }), "UNSUPPORTED", /float16/);
  await fails(attempt({}, [{ tokens: Uint32Array.of(1, 2000) }]), "OPTION_INVALID", /2000/);
  await fails(attempt({}, [{ tokens: Uint32Array.of(1) }]), "OPTION_INVALID", /no token to learn/);
  await fails(attempt({}, [{ tokens: new Uint32Array(66) }]), "OPTION_INVALID", /context/);
  await fails(attempt({}, documents(), { config: { model_type: "gpt2" } }), "UNSUPPORTED", /gpt2/);
  await fails(attempt({}, documents(), { config: 3 }), "OPTION_INVALID", /config/);
});

test("batches and schedule", () => {
  const batch = documentBatch(
    [
      { tokens: Uint32Array.of(5, 6, 7, 8), targets: Uint8Array.of(0, 0, 1, 0) },
      { tokens: Uint32Array.of(1) },
      { tokens: Uint32Array.of(2, 3, 4) },
    ],
    10,
    10,
  );
  assert.equal([...batch.tokens], [5, 6, 2, 3], "nothing behind the last target is read");
  assert.equal([...batch.lengths], [2, 2]);
  assert.equal([...batch.targetRows], [1, 2, 3]);
  assert.equal([...batch.targetIds], [7, 3, 4]);
  assert.throws(
    () => documentBatch([{ tokens: Uint32Array.of(1, 2), targets: Uint8Array.of(1, 1) }], 9, 9),
    /first token/,
  );
  assert.equal(
    [0, 1, 2, 6, 10].map((step) => linearSchedule(step, 1, 2, 10)),
    [0, 0.5, 1, 0.5, 0],
  );
});

test.run();
