import { kinds } from "./config-file.js";
import type { Family } from "./family.js";
import { activation, qwenLayers } from "./parts.js";
import { onlyRope } from "./rope.js";

/** Qwen3: queries and keys are normed per head. */
export const qwen3: Family = {
  name: "qwen3",
  modelTypes: ["qwen3"],
  architectures: ["Qwen3ForCausalLM"],
  prefixes: ["model.", ""],
  traits(config, { headDim, layers }) {
    const bias = config.maybe("attention_bias", kinds.flag, false);
    return {
      tied: config.maybe("tie_word_embeddings", kinds.flag, false),
      qkNorm: true,
      qkvBias: bias,
      outputBias: bias,
      mlpBias: false,
      activation: activation(config),
      queryScale: headDim ** -0.5,
      ropes: [onlyRope(config, headDim)],
      layers: qwenLayers(config, layers),
    };
  },
};
