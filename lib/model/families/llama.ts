import { kinds } from "./config-file.js";
import type { Family } from "./family.js";
import { activation } from "./parts.js";
import { onlyRope } from "./rope.js";

/** Llama 3.x and what has the same shape. */
export const llama: Family = {
  name: "llama",
  modelTypes: ["llama"],
  architectures: ["LlamaForCausalLM"],
  prefixes: ["model.", ""],
  traits(config, { headDim, layers }) {
    const bias = config.maybe("attention_bias", kinds.flag, false);
    config.refuse("sliding_window");
    return {
      tied: config.maybe("tie_word_embeddings", kinds.flag, false),
      qkNorm: false,
      qkvBias: bias,
      outputBias: bias,
      mlpBias: config.maybe("mlp_bias", kinds.flag, false),
      activation: activation(config),
      queryScale: headDim ** -0.5,
      ropes: [onlyRope(config, headDim)],
      layers: Array.from({ length: layers }, () => ({ rope: 0, window: 0 })),
    };
  },
};
