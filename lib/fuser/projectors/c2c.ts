import type { ProjectorKind } from "./kind.js";

/** Gated towers over the sharer's and the receiver's rows, one each for keys and values. */
export const c2c = {
  kind: "c2c",
  class: "C2CProjector",
  options: {
    hidden_dim: 1024,
    intermediate_dim: 1024,
    num_layers: 3,
    dropout: 0.1,
    initial_temperature: 1,
    final_temperature: 0.001,
    anneal_steps: 1929,
    zero_init: false,
  },
} as const satisfies ProjectorKind;
