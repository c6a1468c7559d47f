import type { DecoderSpec, LayerSpec } from "../../../typings/native.js";
import { type ConfigFile, kinds } from "./config-file.js";

const ACTIVATIONS: ReadonlyMap<string, DecoderSpec["activation"]> = new Map([
  ["silu", "silu"],
  ["swish", "silu"],
  ["gelu", "gelu"],
  ["gelu_pytorch_tanh", "gelu_tanh"],
  ["gelu_new", "gelu_tanh"],
]);

/** The feed-forward's activation, under `key`. Errors: UNSUPPORTED naming it. */
export function activation(config: ConfigFile, key = "hidden_act", fallback = "silu"): DecoderSpec["activation"] {
  const name = config.maybe(key, kinds.text, fallback);
  const known = ACTIVATIONS.get(name);
  if (!known) throw config.unsupported(`${key} ${name}`, [...ACTIVATIONS.keys()]);
  return known;
}

/** Which layers see only a window, from `layer_types`, or null where the config has none. Errors: UNSUPPORTED, FILE_INVALID. */
export function slidingLayers(config: ConfigFile, layers: number): boolean[] | null {
  const types = config.maybe("layer_types", kinds.texts, null);
  if (!types) return null;
  if (types.length !== layers) {
    throw config.wrong("layer_types", `has ${types.length} entries for ${layers} layers`);
  }
  return types.map((type) => {
    if (type !== "full_attention" && type !== "sliding_attention") {
      throw config.unsupported(`layer type ${type}`, ["full_attention", "sliding_attention"]);
    }
    return type === "sliding_attention";
  });
}

/** Layers with one rope; `sliding` layers see `window` positions. Errors: FILE_INVALID when a window is needed and not given. */
export function oneRopeLayers(config: ConfigFile, sliding: readonly boolean[], window: number | null): LayerSpec[] {
  return sliding.map((slides) => {
    if (slides && window === null)
      throw config.wrong("sliding_window", "is missing, but layer_types names sliding_attention");
    return { rope: 0, window: slides && window !== null ? window : 0 };
  });
}

/** Layers of a Qwen 2 or 3 config: windows only with `use_sliding_window`, from layer `max_window_layers` on or as `layer_types` says. */
export function qwenLayers(config: ConfigFile, layers: number): LayerSpec[] {
  const slides = config.maybe("use_sliding_window", kinds.flag, false);
  const window = slides ? config.maybe("sliding_window", kinds.size, null) : null;
  const types = slidingLayers(config, layers);
  if (types) return oneRopeLayers(config, types, window);
  const first = window === null ? layers : config.need("max_window_layers", kinds.count);
  return oneRopeLayers(
    config,
    Array.from({ length: layers }, (_, layer) => layer >= first),
    window,
  );
}
