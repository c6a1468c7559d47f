import { join } from "node:path";
import * as v from "valibot";
import type { DecoderSpec, TensorTable } from "../../typings/native.js";
import type { DType, ModelShape } from "../types.js";
import { parseObject, readText, readTextIfThere } from "../weights/file.js";
import { modelTable } from "../weights/folder.js";
import { ConfigFile, kinds } from "./families/config-file.js";
import type { Dimensions, Family, FamilyTraits } from "./families/family.js";
import { families } from "./families/index.js";

/** A model folder's config.json, understood. */
export interface ModelConfig {
  readonly family: string;
  readonly spec: DecoderSpec;
  readonly shape: ModelShape;
  /** What the config says its weights are, else what the first tensor is. */
  readonly dtype: DType;
  /** End tokens of generation_config.json, else of config.json. */
  readonly eos: readonly number[];
  /** The folder's tensors, as the weights' headers say. */
  readonly table: TensorTable;
}

/** Features of other architectures: where a config switches one on, it cannot be loaded. */
const FOREIGN_FEATURES = [
  "quantization_config",
  "num_experts",
  "num_local_experts",
  "n_routed_experts",
  "is_encoder_decoder",
  "use_mrope",
  "alibi",
];
const DTYPES: Readonly<Record<string, DType>> = {
  float32: "float32",
  bfloat16: "bfloat16",
  float16: "float16",
  F32: "float32",
  F64: "float32",
  BF16: "bfloat16",
  F16: "float16",
};
const endTokens = v.union([
  v.pipe(
    kinds.count,
    v.transform((id) => [id]),
  ),
  v.array(kinds.count),
]);

/**
 * Reads config.json (and generation_config.json, and the weights' headers) of a Hugging Face model folder.
 * Errors: IO_FAILED; FILE_INVALID naming a key that is missing or wrong; UNSUPPORTED naming an architecture or feature.
 */
export async function readModelConfig(folder: string): Promise<ModelConfig> {
  const path = join(folder, "config.json");
  const outer = new ConfigFile(path, parseObject(await readText(path), path));
  const { family, config, spec, shape } = understand(outer);
  const table = await modelTable(folder);
  return {
    family: family.name,
    spec: { ...spec, ...names(family, table) },
    shape,
    dtype: dtypeOf(outer, config, table),
    eos: await endTokenIds(folder, outer, config),
    table,
  };
}

/**
 * A config.json's content as the decoder of a model that has no weights yet; `initRange`: the standard deviation of new weights.
 * `path` is for messages. Errors: FILE_INVALID naming a key; UNSUPPORTED.
 */
export function newModelConfig(
  values: Readonly<Record<string, unknown>>,
  path: string,
): { readonly spec: DecoderSpec; readonly shape: ModelShape; readonly initRange: number } {
  const { family, config, spec, shape } = understand(new ConfigFile(path, values));
  const initRange = config.maybe("initializer_range", kinds.positive, 0.02);
  return { spec: { ...spec, ...names(family, { files: [], tensors: [] }) }, shape, initRange };
}

function understand(outer: ConfigFile) {
  const family = familyOf(outer);
  const config = family.nested?.(outer) ?? outer;
  for (const file of [outer, config]) for (const feature of FOREIGN_FEATURES) file.refuse(feature);
  const dims = dimensions(config);
  const spec = decoderSpec(config, dims, family.traits(config, dims));
  const { layers, hidden, heads, kvHeads, headDim, context } = dims;
  const shape = { family: family.name, layers, hidden, heads, kvHeads, headDim, vocab: spec.vocab, context };
  return { family, config, spec, shape };
}

function familyOf(config: ConfigFile): Family {
  const type = config.need("model_type", kinds.text);
  const family = families.find(({ modelTypes }) => modelTypes.includes(type));
  if (!family)
    throw config.unsupported(
      `model_type ${type}`,
      families.flatMap(({ modelTypes }) => modelTypes),
    );
  for (const architecture of config.maybe("architectures", kinds.texts, [])) {
    if (!family.architectures.includes(architecture)) {
      throw config.unsupported(
        `architecture ${architecture}`,
        families.flatMap(({ architectures }) => architectures),
      );
    }
  }
  return family;
}

function dimensions(config: ConfigFile): Dimensions {
  const hidden = config.need("hidden_size", kinds.size);
  const heads = config.need("num_attention_heads", kinds.size);
  const kvHeads = config.maybe("num_key_value_heads", kinds.size, heads);
  const headDim = config.maybe("head_dim", kinds.size, hidden / heads);
  if (!Number.isInteger(headDim)) throw config.wrong("hidden_size", `of ${hidden} does not divide into ${heads} heads`);
  if (heads % kvHeads !== 0)
    throw config.wrong("num_attention_heads", `of ${heads} is no multiple of ${kvHeads} key-value heads`);
  const layers = config.need("num_hidden_layers", kinds.size);
  return { layers, hidden, heads, kvHeads, headDim, context: config.need("max_position_embeddings", kinds.size) };
}

function decoderSpec(config: ConfigFile, dims: Dimensions, traits: FamilyTraits): Omit<DecoderSpec, "prefix" | "head"> {
  const { hidden, heads, kvHeads, headDim, context } = dims;
  return {
    hidden,
    heads,
    kvHeads,
    headDim,
    context,
    intermediate: config.need("intermediate_size", kinds.size),
    vocab: config.need("vocab_size", kinds.size),
    normEps: config.maybe("rms_norm_eps", kinds.positive, 1e-6),
    normOffset: 0,
    embeddingScale: 1,
    postNorms: false,
    logitSoftcap: 0,
    ...traits,
  };
}

/** Tensor names differ between the plain and the nested layouts of a family: what the files hold decides. */
function names(family: Family, table: TensorTable): { prefix: string; head: string } {
  const present = new Set(table.tensors.map(({ name }) => name));
  const prefix =
    family.prefixes.find((candidate) => present.has(`${candidate}embed_tokens.weight`)) ?? family.prefixes[0] ?? "";
  const head =
    ["lm_head.weight", "language_model.lm_head.weight"].find((name) => present.has(name)) ?? "lm_head.weight";
  return { prefix, head };
}

function dtypeOf(outer: ConfigFile, inner: ConfigFile, table: TensorTable): DType {
  for (const config of [outer, inner]) {
    for (const key of ["dtype", "torch_dtype"]) {
      const name = config.maybe(key, kinds.text, "auto").replace(/^torch\./, "");
      if (name === "auto") continue;
      const dtype = DTYPES[name];
      if (!dtype) throw config.unsupported(`${key} ${name}`, ["float32", "bfloat16", "float16"]);
      return dtype;
    }
  }
  return DTYPES[table.tensors[0]?.dtype ?? "F32"] ?? "float32";
}

async function endTokenIds(folder: string, outer: ConfigFile, inner: ConfigFile): Promise<readonly number[]> {
  const path = join(folder, "generation_config.json");
  const text = await readTextIfThere(path);
  const files = [...(text === null ? [] : [new ConfigFile(path, parseObject(text, path))]), outer, inner];
  return files.find((file) => file.has("eos_token_id"))?.need("eos_token_id", endTokens) ?? [];
}
