import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readModelConfig } from "../dist/model/config.js";
import { writeSafetensors } from "../dist/weights/safetensors.js";
import { fails } from "./support.mjs";

const MODELS = new URL("goldens/models/", import.meta.url).pathname;
const PAIR = new URL("../models/pair/", import.meta.url).pathname;
const test = suite("config");
let folder = "";
test.before.each(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-config-"));
});
test.after.each(() => rm(folder, { recursive: true, force: true }));

/** A golden model's config with changes; undefined removes a key. */
async function changed(model, changes, weights = "model.embed_tokens.weight") {
  const config = JSON.parse(await readFile(join(MODELS, model, "config.json"), "utf8"));
  return written({ ...config, ...changes }, weights);
}

async function written(config, weights = "model.embed_tokens.weight") {
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await writeSafetensors(join(folder, "model.safetensors"), [
    { name: weights, dtype: "BF16", shape: [1], data: new Uint8Array(2) },
  ]);
  return readModelConfig(folder);
}

test("Qwen3", async () => {
  const { family, spec, shape, dtype, eos } = await readModelConfig(join(MODELS, "receiver"));
  assert.equal(
    [family, dtype, eos, spec.qkNorm, spec.qkvBias, spec.tied],
    ["qwen3", "float32", [417, 415], true, false, true],
  );
  assert.equal(shape, {
    family: "qwen3",
    layers: 4,
    hidden: 64,
    heads: 4,
    kvHeads: 2,
    headDim: 32,
    vocab: 448,
    context: 1024,
  });
  assert.is(spec.ropes[0].inverseFrequencies.length, 16);
  const biased = await changed("receiver", { attention_bias: true, dtype: undefined });
  assert.equal([biased.spec.qkvBias, biased.spec.outputBias, biased.dtype], [true, true, "bfloat16"]);
});

test("Qwen2", async () => {
  const { spec } = await readModelConfig(join(MODELS, "qwen2"));
  assert.equal([spec.qkNorm, spec.qkvBias, spec.outputBias, spec.headDim], [false, true, false, 8]);
  const windows = async (changes) => (await changed("qwen2", changes)).spec.layers.map(({ window }) => window);
  const sliding = { use_sliding_window: true, sliding_window: 32, max_window_layers: 4, layer_types: undefined };
  assert.equal(await windows(sliding), [0, 0, 0, 0, 32, 32]);
  assert.equal(await windows({ ...sliding, use_sliding_window: false }), [0, 0, 0, 0, 0, 0]);
  const types = ["sliding_attention", ...Array(5).fill("full_attention")];
  assert.equal(await windows({ ...sliding, layer_types: types }), [32, 0, 0, 0, 0, 0]);
  await fails(windows({ layer_types: types }), "FILE_INVALID", /sliding_window/);
  await fails(windows({ layer_types: types.slice(1) }), "FILE_INVALID", /layer_types/);
  await fails(windows({ layer_types: Array(6).fill("linear_attention") }), "UNSUPPORTED", /linear_attention/);
});

test("Llama with scaled ropes", async () => {
  const { spec } = await readModelConfig(join(MODELS, "llama"));
  // Waves of 6 and 63 positions are kept or blended, those of 628 and 6,283 stretched: 256 trained positions, factors 1 and 4.
  const [first, second, third, fourth] = spec.ropes[0].inverseFrequencies;
  assert.is(first, 1);
  assert.ok(Math.abs(second - 0.1) < 1e-7);
  assert.ok(Math.abs(third - 0.00125) < 1e-9);
  assert.ok(Math.abs(fourth - 0.000125) < 1e-10);
  const rope = async (rope_scaling, more = {}) =>
    (await changed("llama", { rope_scaling, ...more })).spec.ropes[0].inverseFrequencies[1];
  assert.ok(Math.abs((await rope({ type: "linear", factor: 4 })) - 0.025) < 1e-8);
  assert.ok(Math.abs((await rope({ rope_type: "default" })) - 0.1) < 1e-7);
  const blended = {
    rope_type: "llama3",
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 128,
  };
  const share = ((128 * 0.1) / (2 * Math.PI) - 1) / 3;
  assert.ok(Math.abs((await rope(blended)) - ((1 - share) * 0.0125 + share * 0.1)) < 1e-8);
  const newer = { rope_parameters: { rope_type: "linear", rope_theta: 160_000, factor: 2 } };
  assert.ok(Math.abs((await rope(undefined, newer)) - 0.025) < 1e-8);
  for (const type of ["yarn", "dynamic", "longrope"])
    await fails(rope({ rope_type: type, factor: 2 }), "UNSUPPORTED", new RegExp(type));
  await fails(rope({ ...blended, high_freq_factor: undefined }), "FILE_INVALID", /rope_scaling\.high_freq_factor/);
});

test("Mistral", async () => {
  const mistral = {
    model_type: "mistral",
    architectures: ["MistralForCausalLM"],
    rope_scaling: null,
    tie_word_embeddings: undefined,
  };
  const { spec, family } = await changed("llama", { ...mistral, sliding_window: 16 });
  assert.equal([family, spec.tied, spec.layers.map(({ window }) => window)], ["mistral", false, [16, 16, 16]]);
  const full = await changed("llama", { ...mistral, sliding_window: null, head_dim: undefined });
  assert.equal(
    full.spec.layers.map(({ window }) => window),
    [0, 0, 0],
  );
  await fails(changed("llama", { ...mistral, attention_bias: true }), "UNSUPPORTED", /attention_bias/);
});

test("Gemma 3", async () => {
  const { spec, eos } = await readModelConfig(join(MODELS, "gemma3"));
  assert.equal(
    [spec.normOffset, spec.postNorms, spec.qkNorm, spec.tied, spec.activation],
    [1, true, true, true, "gelu_tanh"],
  );
  assert.equal([spec.embeddingScale, spec.queryScale, eos], [Math.sqrt(40), 32 ** -0.5, [1]]);
  assert.equal(
    spec.layers.map(({ rope, window }) => [rope, window]),
    [
      [1, 24],
      [1, 24],
      [0, 0],
      [1, 24],
      [0, 0],
    ],
  );
  const pattern = { layer_types: undefined, _sliding_window_pattern: undefined, sliding_window_pattern: 2 };
  const scaled = await changed("gemma3", {
    ...pattern,
    rope_scaling: { rope_type: "linear", factor: 8 },
    final_logit_softcapping: 30,
  });
  assert.equal(
    scaled.spec.layers.map(({ window }) => window),
    [24, 0, 24, 0, 24],
  );
  assert.equal([scaled.spec.ropes[0].inverseFrequencies[0], scaled.spec.ropes[1].inverseFrequencies[0]], [0.125, 1]);
  assert.is(scaled.spec.logitSoftcap, 30);
  const both = {
    full_attention: { rope_type: "linear", factor: 2, rope_theta: 1e6 },
    sliding_attention: { rope_type: "default", rope_theta: 1e4 },
  };
  const newer = await changed("gemma3", {
    rope_theta: undefined,
    rope_local_base_freq: undefined,
    rope_parameters: both,
  });
  assert.equal(
    newer.spec.ropes.map((rope) => rope.inverseFrequencies[0]),
    [0.5, 1],
  );
  await fails(changed("gemma3", { attn_logit_softcapping: 50 }), "UNSUPPORTED", /attn_logit_softcapping/);
  await fails(changed("gemma3", { use_bidirectional_attention: true }), "UNSUPPORTED", /use_bidirectional_attention/);
  await fails(changed("gemma3", { query_pre_attn_scalar: undefined }), "FILE_INVALID", /query_pre_attn_scalar/);
});

test("Gemma 3 inside a multimodal config", async () => {
  const text = {
    model_type: "gemma3_text",
    hidden_size: 2560,
    intermediate_size: 10240,
    num_hidden_layers: 7,
    sliding_window: 1024,
  };
  const outer = {
    model_type: "gemma3",
    architectures: ["Gemma3ForConditionalGeneration"],
    eos_token_id: [1, 106],
    text_config: text,
  };
  for (const prefix of ["language_model.model.", "model.language_model."]) {
    const { spec, shape, eos } = await written(outer, `${prefix}embed_tokens.weight`);
    assert.equal([spec.prefix, shape.heads, shape.kvHeads, shape.headDim, shape.vocab], [prefix, 8, 4, 256, 262_208]);
    assert.equal([spec.layers[5], spec.layers[6], eos], [{ rope: 0, window: 0 }, { rope: 1, window: 1024 }, [1, 106]]);
  }
});

test("what is not there is refused by name", async () => {
  await fails(changed("receiver", { model_type: "qwen3_moe" }), "UNSUPPORTED", /qwen3_moe/);
  await fails(
    changed("receiver", { architectures: ["Qwen3ForSequenceClassification"] }),
    "UNSUPPORTED",
    /SequenceClassification/,
  );
  await fails(changed("receiver", { quantization_config: { bits: 4 } }), "UNSUPPORTED", /quantization_config/);
  await fails(changed("receiver", { num_experts: 8 }), "UNSUPPORTED", /num_experts/);
  await fails(changed("receiver", { hidden_act: "relu2" }), "UNSUPPORTED", /relu2/);
  await fails(changed("receiver", { dtype: "float8_e4m3fn" }), "UNSUPPORTED", /float8/);
  await fails(changed("receiver", { partial_rotary_factor: 0.5 }), "UNSUPPORTED", /partial_rotary_factor/);
});

test("missing and wrong keys are named", async () => {
  const needed = [
    "model_type",
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
  ];
  for (const key of needed) {
    await fails(changed("receiver", { [key]: undefined }), "FILE_INVALID", new RegExp(key));
    await fails(changed("receiver", { [key]: [] }), "FILE_INVALID", new RegExp(key));
  }
  await fails(changed("qwen2", { hidden_size: 50 }), "FILE_INVALID", /hidden_size/);
  await fails(changed("receiver", { num_key_value_heads: 3 }), "FILE_INVALID", /num_attention_heads/);
  await fails(readModelConfig(join(folder, "none")), "IO_FAILED", /ENOENT/);
  await cp(join(MODELS, "receiver", "config.json"), join(folder, "config.json"));
  await writeFile(join(folder, "config.json"), "{");
  await fails(readModelConfig(folder), "FILE_INVALID", /not JSON/);
});

test("the embedded pair", async () => {
  const [receiver, sharer] = [
    await readModelConfig(join(PAIR, "receiver")),
    await readModelConfig(join(PAIR, "sharer")),
  ];
  assert.equal([receiver.shape.layers, receiver.shape.kvHeads, receiver.shape.headDim, receiver.eos], [4, 3, 24, [2]]);
  assert.equal([sharer.shape.layers, sharer.shape.kvHeads, sharer.shape.headDim, sharer.family], [5, 2, 32, "qwen2"]);
});

test.run();
