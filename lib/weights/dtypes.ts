import type { TensorEntry } from "../../typings/native.js";

/** Element types of weights, as safetensors names them. */
export type WeightDType = TensorEntry["dtype"];

/** Bytes per element. */
export const WIDTHS: Readonly<Record<WeightDType, number>> = { F32: 4, BF16: 2, F16: 2, F64: 8 };

/** Product of a shape's dimensions; 1 for a scalar. Past 2^53 it is inexact, or Infinity: more than any file holds. */
export function elements(shape: readonly number[]): number {
  if (shape.includes(0)) return 0; // Infinity * 0 would be NaN
  return shape.reduce((product, size) => product * size, 1);
}
