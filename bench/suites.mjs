// What is measured: each suite's variants, the floor of a row and the peers that do the same work.
import { floors } from "./floors.mjs";
import { configs, fuser } from "./models.mjs";

const { receiver, sharer } = configs;
const OPEN = { open: 2 * fuser.fused, half: fuser.fused, closed: 0 };
const BOTH = ["bfloat16", "float32"];
/** onnxruntime's CPU provider has no products in bfloat16. */
const exported = (dtype) => (dtype === "float32" ? ["onnxruntime"] : []);

/**
 * suite → { variants, dtypes(variant), prompts, floor(machine, { variant, dtype, prompt }, row), peers(variant, dtype) }.
 * A floor of null: nothing has to be computed or read. Peers are names of bench/peers/index.mjs.
 */
export const suites = {
  fusion: {
    variants: ["open", "half", "closed"],
    dtypes: () => BOTH,
    floor: (machine, { variant, dtype, prompt }) => floors.fusion(machine, fuser, dtype, prompt, OPEN[variant]),
    peers: (variant, dtype) => (variant === "open" ? ["eager", ...exported(dtype)] : []),
  },
  prefill: {
    variants: ["receiver"],
    dtypes: () => BOTH,
    floor: (machine, { dtype, prompt }) => floors.prefill(machine, receiver, dtype, prompt),
    peers: (_, dtype) =>
      dtype === "bfloat16" ? ["transformers", "llama.cpp BF16"] : ["transformers", ...exported(dtype)],
  },
  decode: {
    variants: ["one", "batch8", "int8", "int4"],
    prompts: [16, 1024],
    dtypes: (variant) => (variant === "one" ? BOTH : ["bfloat16"]),
    floor: (machine, { variant, dtype, prompt }) =>
      variant === "batch8"
        ? floors.decode(machine, receiver, dtype, prompt, 8)
        : floors.decode(machine, receiver, variant === "one" ? dtype : variant, prompt),
    peers: (variant, dtype) =>
      ({
        one: dtype === "bfloat16" ? ["transformers", "llama.cpp BF16"] : ["transformers", ...exported(dtype)],
        int8: ["llama.cpp Q8_0"],
        int4: ["llama.cpp Q4_0"],
      })[variant] ?? [],
  },
  channel: {
    variants: ["c2c", "text"],
    dtypes: () => BOTH,
    // Both prefills, the fusion and the first token of the receiver.
    floor: (machine, { variant, dtype, prompt }) =>
      variant === "text"
        ? null
        : floors.prefill(machine, receiver, dtype, prompt) +
          floors.prefill(machine, sharer, dtype, prompt) +
          floors.fusion(machine, fuser, dtype, prompt, OPEN.open) +
          floors.decode(machine, receiver, dtype, prompt),
    peers: (variant) => (variant === "c2c" ? ["reference"] : []),
  },
  load: {
    // Whole, without the tokenizer, and the tokenizer alone: two threads share the whole.
    variants: ["load", "weights", "tokenizer"],
    prompts: [16],
    dtypes: () => ["bfloat16"],
    floor: (machine, { variant }, row) => (variant === "tokenizer" ? null : floors.read(machine, row.bytes)),
    peers: () => [],
  },
  facade: {
    variants: ["facade"],
    prompts: [16],
    dtypes: () => ["bfloat16"],
    floor: () => null,
    peers: () => [],
  },
};
