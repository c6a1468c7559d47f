import type { RopeSpec } from "../../../typings/native.js";
import { type ConfigFile, kinds } from "./config-file.js";
import type { Family } from "./family.js";
import { activation, slidingLayers } from "./parts.js";
import { rope } from "./rope.js";

/** What the published nested configs leave out. */
const NESTED_DEFAULTS = {
  model_type: "gemma3_text",
  vocab_size: 262_208,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  max_position_embeddings: 131_072,
  query_pre_attn_scalar: 256,
  sliding_window: 4096,
};

/** Gemma 3's text decoder, alone or inside the multimodal config. */
export const gemma3: Family = {
  name: "gemma3",
  modelTypes: ["gemma3_text", "gemma3"],
  architectures: ["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
  prefixes: ["model.", "language_model.model.", "model.language_model.", ""],
  nested(config) {
    if (!config.has("text_config")) return config;
    const outer = config.has("tie_word_embeddings") ? { tie_word_embeddings: config.values.tie_word_embeddings } : {};
    return config.inside("text_config").withDefaults({ ...NESTED_DEFAULTS, ...outer });
  },
  traits(config, { headDim, hidden, layers }) {
    config.refuse("attn_logit_softcapping");
    config.refuse("use_bidirectional_attention");
    const bias = config.maybe("attention_bias", kinds.flag, false);
    const pattern =
      config.maybe("sliding_window_pattern", kinds.size, null) ??
      config.maybe("_sliding_window_pattern", kinds.size, 6);
    const sliding = slidingLayers(config, layers) ?? Array.from({ length: layers }, (_, i) => (i + 1) % pattern !== 0);
    const window = sliding.includes(true) ? config.need("sliding_window", kinds.size) : 0;
    return {
      tied: config.maybe("tie_word_embeddings", kinds.flag, true),
      qkNorm: true,
      qkvBias: bias,
      outputBias: bias,
      mlpBias: false,
      activation: activation(config, "hidden_activation", "gelu_pytorch_tanh"),
      queryScale: config.need("query_pre_attn_scalar", kinds.positive) ** -0.5,
      ropes: ropes(config, headDim),
      layers: sliding.map((slides) => (slides ? { rope: 1, window } : { rope: 0, window: 0 })),
      normOffset: 1,
      embeddingScale: Math.sqrt(hidden),
      postNorms: true,
      logitSoftcap: config.maybe("final_logit_softcapping", kinds.positive, 0),
    };
  },
};

/** The rope of full layers, then that of sliding ones. */
function ropes(config: ConfigFile, headDim: number): RopeSpec[] {
  const globalTheta = config.maybe("rope_theta", kinds.positive, 1_000_000);
  const localTheta = config.maybe("rope_local_base_freq", kinds.positive, 10_000);
  if (!config.has("rope_parameters")) {
    const scaling = config.has("rope_scaling") ? config.inside("rope_scaling") : null;
    return [rope(config, scaling, globalTheta, headDim), rope(config, null, localTheta, headDim)];
  }
  const parameters = config.inside("rope_parameters");
  if (!parameters.has("full_attention")) {
    const theta = parameters.maybe("rope_theta", kinds.positive, globalTheta);
    return [rope(config, parameters, theta, headDim), rope(config, null, localTheta, headDim)];
  }
  const full = parameters.inside("full_attention");
  const local = parameters.has("sliding_attention") ? parameters.inside("sliding_attention") : null;
  return [
    rope(config, full, full.maybe("rope_theta", kinds.positive, globalTheta), headDim),
    rope(config, local, local?.maybe("rope_theta", kinds.positive, null) ?? localTheta, headDim),
  ];
}
