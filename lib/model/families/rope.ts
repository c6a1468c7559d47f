import type { RopeSpec } from "../../../typings/native.js";
import { type ConfigFile, kinds } from "./config-file.js";

/** Rope types that are understood. */
export const ROPE_TYPES = ["default", "linear", "llama3"] as const;

/**
 * Radians per position of one kind of rotary embedding: base `theta`, `headDim / 2` values in float32 precision, scaled as `scaling`
 * (a rope_scaling or rope_parameters object; null: not at all) says. Errors: UNSUPPORTED naming the rope type, FILE_INVALID naming a key.
 */
export function rope(config: ConfigFile, scaling: ConfigFile | null, theta: number, headDim: number): RopeSpec {
  const type = scaling?.maybe("rope_type", kinds.text, null) ?? scaling?.maybe("type", kinds.text, null) ?? "default";
  if (headDim % 2 !== 0) throw config.unsupported(`rope over an odd head_dim of ${headDim}`);
  const plain = Array.from({ length: headDim / 2 }, (_, i) =>
    Math.fround(1 / Math.fround(theta ** Math.fround((2 * i) / headDim))),
  );
  if (type === "default") return { inverseFrequencies: Float64Array.from(plain) };
  if (scaling && type === "linear") {
    const factor = scaling.need("factor", kinds.positive);
    return { inverseFrequencies: Float64Array.from(plain, (frequency) => Math.fround(frequency / factor)) };
  }
  if (scaling && type === "llama3") return { inverseFrequencies: Float64Array.from(plain, llama3(scaling)) };
  throw config.unsupported(`rope type ${type}`, ROPE_TYPES);
}

/** Llama 3's scaling: long waves are stretched by `factor`, short ones kept, those between blended. */
function llama3(scaling: ConfigFile): (frequency: number) => number {
  const factor = scaling.need("factor", kinds.positive);
  const low = scaling.need("low_freq_factor", kinds.positive);
  const high = scaling.need("high_freq_factor", kinds.positive);
  const trained = scaling.need("original_max_position_embeddings", kinds.size);
  return (frequency) => {
    const turns = (trained * frequency) / (2 * Math.PI);
    if (turns < low) return Math.fround(frequency / factor);
    if (turns > high || high === low) return frequency;
    const share = (turns - low) / (high - low);
    return Math.fround(((1 - share) * frequency) / factor + share * frequency);
  };
}

/**
 * The one rotary embedding of a config: `rope_theta` with `rope_scaling`, or the newer `rope_parameters` that holds both.
 * Errors: UNSUPPORTED, FILE_INVALID.
 */
export function onlyRope(config: ConfigFile, headDim: number, defaultTheta = 10_000): RopeSpec {
  config.refuse("partial_rotary_factor", [1]);
  const parameters = config.has("rope_parameters") ? config.inside("rope_parameters") : null;
  parameters?.refuse("partial_rotary_factor", [1]);
  const scaling = parameters ?? (config.has("rope_scaling") ? config.inside("rope_scaling") : null);
  const theta =
    (parameters ?? config).maybe("rope_theta", kinds.positive, null) ??
    config.maybe("rope_theta", kinds.positive, defaultTheta);
  return rope(config, scaling, theta, headDim);
}
