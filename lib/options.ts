import { C2CError } from "./errors.js";
import type { Device, LoadOptions } from "./types.js";

/** OPTION_INVALID. */
export function invalid(option: string, reason: string): C2CError<"OPTION_INVALID"> {
  return new C2CError("OPTION_INVALID", { option, reason }, `${option}: ${reason}`);
}

/** A safe integer in [least, most], or OPTION_INVALID. */
export function integer(option: string, value: unknown, least: number, most = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < least || value > most) {
    const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
    throw invalid(option, `must be an integer ${range}, is ${String(value)}`);
  }
  return value;
}

/** One of the given strings, or OPTION_INVALID. */
export function choice<T extends string>(option: string, value: unknown, among: readonly T[]): T {
  const found = among.find((one) => one === value);
  if (found === undefined) {
    throw invalid(option, `must be one of ${among.join(", ")}, is ${String(value)}`);
  }
  return found;
}

/** libtorch counts devices in 7 bits. */
const LARGEST_INDEX = 127;

/** The device that was asked for, else `fallback`. OPTION_INVALID, UNSUPPORTED for another kind; whether it is there is not asked. */
export function loadDevice({ device }: LoadOptions, fallback: Device = { kind: "cpu" }): Device {
  if (device === undefined) {
    return fallback;
  }
  if (typeof device !== "object" || device === null || typeof device.kind !== "string") {
    throw invalid("device", 'must be { kind: "cpu" } or { kind: "cuda", index }');
  }
  if (device.kind === "cpu") {
    return { kind: "cpu" };
  }
  if (device.kind !== "cuda") {
    const what = `device ${String((device as { readonly kind: string }).kind)}`;
    throw new C2CError("UNSUPPORTED", { what, supported: ["cpu", "cuda"] }, `${what} is not supported`);
  }
  return { kind: "cuda", index: integer("device.index", device.index, 0, LARGEST_INDEX) };
}

/** The dtype to compute in: what was asked for, else `fallback`; float16 by default becomes bfloat16. UNSUPPORTED for what is not there. */
export function loadDType(options: LoadOptions, fallback: string): "float32" | "bfloat16" {
  const dtype = options.dtype ?? (fallback === "float16" ? "bfloat16" : fallback);
  if (dtype !== "float32" && dtype !== "bfloat16") {
    const details = { what: `dtype ${dtype}`, supported: ["float32", "bfloat16"] };
    throw new C2CError("UNSUPPORTED", details, `dtype ${dtype} is not supported`);
  }
  return dtype;
}

/** How weights are stored, null as they are. UNSUPPORTED for what is none of `supported`. */
export function loadQuantize(
  options: LoadOptions,
  supported: readonly ("int8" | "int4")[] = ["int8", "int4"],
): "int8" | "int4" | null {
  const { quantize } = options;
  if (quantize === undefined) {
    return null;
  }
  if (!supported.includes(quantize)) {
    const details = { what: `quantize ${quantize}`, supported };
    throw new C2CError("UNSUPPORTED", details, `quantize ${quantize} is not supported here`);
  }
  return quantize;
}
