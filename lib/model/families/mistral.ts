import { kinds } from "./config-file.js";
import type { Family } from "./family.js";
import { activation, oneRopeLayers, slidingLayers } from "./parts.js";
import { onlyRope } from "./rope.js";

/** Mistral: `sliding_window`, where it is a number, holds for every layer that `layer_types` does not exempt. */
export const mistral: Family = {
  name: "mistral",
  modelTypes: ["mistral"],
  architectures: ["MistralForCausalLM"],
  prefixes: ["model.", ""],
  traits(config, { headDim, layers }) {
    config.refuse("attention_bias");
    const window = config.maybe("sliding_window", kinds.size, null);
    const sliding = slidingLayers(config, layers) ?? Array.from({ length: layers }, () => window !== null);
    return {
      tied: config.maybe("tie_word_embeddings", kinds.flag, false),
      qkNorm: false,
      qkvBias: false,
      outputBias: false,
      mlpBias: false,
      activation: activation(config),
      queryScale: headDim ** -0.5,
      ropes: [onlyRope(config, headDim)],
      layers: oneRopeLayers(config, sliding, window),
    };
  },
};
