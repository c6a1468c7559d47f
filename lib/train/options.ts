import { invalid } from "../options.js";

/** A finite number in [least, most], or OPTION_INVALID. */
export function number(option: string, value: unknown, least: number, most = Number.MAX_VALUE): number {
  if (typeof value !== "number" || !(value >= least && value <= most)) {
    const range = most === Number.MAX_VALUE ? `of at least ${least}` : `from ${least} to ${most}`;
    throw invalid(option, `must be a number ${range}, is ${String(value)}`);
  }
  return value;
}

/** A seed as the native side takes it: 64 bits. OPTION_INVALID. */
export function seed64(value: unknown): bigint {
  if (typeof value !== "bigint" || value < 0n) throw invalid("seed", "must be a bigint of at least 0");
  return BigInt.asUintN(64, value);
}

/** true or false, or OPTION_INVALID. */
export function flag(option: string, value: unknown): boolean {
  if (typeof value !== "boolean") throw invalid(option, `must be true or false, is ${String(value)}`);
  return value;
}
