import { C2CError } from "./errors.js";
import type { LoadOptions } from "./types.js";

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

/** The dtype to compute in: what was asked for, else `fallback`; float16 by default becomes bfloat16. UNSUPPORTED for what is not there. */
export function loadDType(options: LoadOptions, fallback: string): "float32" | "bfloat16" {
  const device = options.device?.kind ?? "cpu";
  if (device !== "cpu") {
    throw new C2CError(
      "UNSUPPORTED",
      { what: `device ${device}`, supported: ["cpu"] },
      `device ${device} is not supported`,
    );
  }
  const dtype = options.dtype ?? (fallback === "float16" ? "bfloat16" : fallback);
  if (dtype !== "float32" && dtype !== "bfloat16") {
    const details = { what: `dtype ${dtype}`, supported: ["float32", "bfloat16"] };
    throw new C2CError("UNSUPPORTED", details, `dtype ${dtype} is not supported on CPU`);
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
