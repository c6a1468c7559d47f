import { kinds } from "./config-file.js";
import type { Family } from "./family.js";
import { activation, qwenLayers } from "./parts.js";
import { onlyRope } from "./rope.js";

/** Qwen2 and Qwen2.5, the Math and Coder variants too: biases on queries, keys and values. */
export const qwen2: Family = {
  name: "qwen2",
  modelTypes: ["qwen2"],
  architectures: ["Qwen2ForCausalLM"],
  prefixes: ["model.", ""],
  traits(config, { headDim, layers }) {
    return {
      tied: config.maybe("tie_word_embeddings", kinds.flag, false),
      qkNorm: false,
      qkvBias: true,
      outputBias: false,
      mlpBias: false,
      activation: activation(config),
      queryScale: headDim ** -0.5,
      ropes: [onlyRope(config, headDim)],
      layers: qwenLayers(config, layers),
    };
  },
};
