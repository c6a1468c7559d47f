import type { ProjectorSpec } from "../../typings/native.js";
import { C2CError } from "../errors.js";

/** Values of one projector's options, under the reference's names. */
export type ProjectorOptions = ProjectorSpec["options"];

const MULTILAYER = {
  hidden_dim: 1024,
  intermediate_dim: 1024,
  num_layers: 3,
  dropout: 0.1,
  initial_temperature: 1,
  final_temperature: 0.001,
  anneal_steps: 1929,
  zero_init: false,
} as const;

const DEFAULTS: Readonly<Record<string, ProjectorOptions>> = {
  C2CProjector: MULTILAYER,
  AblationProjector: { ...MULTILAYER, ablation_level: 0 },
  AllInOneProjector: {
    hidden_dim: 512,
    num_layers: 2,
    dropout: 0.1,
    activation: "gelu",
    use_layer_norm: true,
    use_residual: true,
    use_swiglu: false,
    gate_granularity: "scalar",
    gate_depends_on_input: false,
    gate_input_features: "target_key",
    gate_init_value: 0,
    weight_granularity: "scalar",
    weight_depends_on_input: false,
    weight_input_features: "target_key",
    weight_init_value: 0,
    preserve_target_weight: true,
    add_self: true,
    use_concat: false,
    weight_hidden_dim: 1024,
    use_gumbel: true,
    initial_temperature: 1,
    final_temperature: 0.01,
    anneal_steps: 1360,
    scalar_temperature: 0.005,
    max_sequence_length: 8192,
    pos_emb: false,
  },
};
/** Given by every projector's dimensions, not options. */
const DIMENSIONS: ReadonlySet<string> = new Set([
  "source_dim",
  "target_dim",
  "source_num_heads",
  "target_num_heads",
  "dtype",
]);
/** The public names of projector classes. */
export const KINDS = {
  C2CProjector: "c2c",
  AblationProjector: "ablation",
  AllInOneProjector: "all-in-one",
} as const;

/**
 * A projector's options with defaults filled in: `args` are what its constructor was given; dimensions and dtype among them are left
 * out. Errors: UNSUPPORTED for a class or an option that is not known, OPTION_INVALID for a value of another type.
 */
export function projectorOptions(kind: string, args: Readonly<Record<string, unknown>>): ProjectorOptions {
  const defaults = Object.hasOwn(DEFAULTS, kind) ? DEFAULTS[kind] : undefined;
  if (!defaults) throw unsupported(`projector class ${kind}`, Object.keys(DEFAULTS));
  const options: Record<string, number | boolean | string> = { ...defaults };
  for (const [name, value] of Object.entries(args)) {
    if (DIMENSIONS.has(name) || value === null || value === undefined) continue;
    const fallback = defaults[name];
    if (fallback === undefined) throw unsupported(`option ${name} of ${kind}`, Object.keys(defaults));
    if (
      (typeof value !== "number" && typeof value !== "boolean" && typeof value !== "string") ||
      typeof value !== typeof fallback
    ) {
      const reason = `${JSON.stringify(value)} is no ${typeof fallback}`;
      throw new C2CError("OPTION_INVALID", { option: name, reason }, `${kind}: option ${name}: ${reason}`);
    }
    options[name] = value;
  }
  return options;
}

function unsupported(what: string, supported: readonly string[]): C2CError<"UNSUPPORTED"> {
  return new C2CError("UNSUPPORTED", { what, supported }, `${what} is not supported`);
}
