import { readFile } from "node:fs/promises";
import { readSafetensors } from "../weights/safetensors.js";

/** One recorded tensor, widened to float32, row-major. */
export interface Golden {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** What became of one case. `maxAbs`: the largest difference over all that was compared. */
export interface CaseResult {
  readonly file: string;
  readonly name: string;
  readonly maxAbs: number;
  readonly tokensMatch: boolean;
  readonly pass: boolean;
  readonly reason?: string;
}

/** Reads a JSON file of the folder. */
export async function readJson<T>(path: string): Promise<T> {
  return JSON.parse(await readFile(path, "utf8")) as T;
}

/** All tensors of a safetensors file in float32. Reads the whole file. */
export async function readGoldens(path: string): Promise<Map<string, Golden>> {
  const { tensors } = await readSafetensors(path);
  const bytes = await readFile(path);
  const goldens = new Map<string, Golden>();
  for (const { name, dtype, shape, begin, end } of tensors) {
    goldens.set(name, {
      shape,
      data: widen(Uint8Array.from(bytes.subarray(begin, end)), dtype),
    });
  }
  return goldens;
}

function widen(bytes: Uint8Array, dtype: string): Float32Array {
  if (dtype === "F32") return new Float32Array(bytes.buffer);
  if (dtype === "F64") return Float32Array.from(new Float64Array(bytes.buffer));
  if (dtype !== "BF16") throw new Error(`a golden of dtype ${dtype}`);
  const halves = new Uint16Array(bytes.buffer);
  const words = new Uint32Array(halves.length);
  for (const [i, half] of halves.entries()) words[i] = half << 16;
  return new Float32Array(words.buffer);
}

/** Reorders one batch element of [batch, heads, rows, width] into [rows, heads, width]. */
export function rowsOf(golden: Golden, batch = 0): Float32Array {
  const [, heads = 1, rows = 1, width = 1] = golden.shape;
  const out = new Float32Array(rows * heads * width);
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < rows; row++) {
      const from = ((batch * heads + head) * rows + row) * width;
      out.set(golden.data.subarray(from, from + width), (row * heads + head) * width);
    }
  }
  return out;
}

/** Picks rows of `width` values. */
export function pickRows(data: Float32Array, width: number, rows: readonly number[]): Float32Array {
  const out = new Float32Array(rows.length * width);
  for (const [i, row] of rows.entries()) out.set(data.subarray(row * width, (row + 1) * width), i * width);
  return out;
}

/** Collects differences of one case; nothing throws, so that one report says all that is wrong. */
export class Check {
  readonly #file: string;
  readonly #name: string;
  readonly #reasons: string[] = [];
  #maxAbs = 0;
  #tokensMatch = true;

  constructor(file: string, name: string) {
    this.#file = file;
    this.#name = name;
  }

  /** Within 1e-4 + 1e-5 · max|expected|, value by value. */
  close(what: string, actual: Float32Array, expected: Float32Array): void {
    if (actual.length !== expected.length) {
      this.fail(`${what}: ${actual.length} values, expected ${expected.length}`);
      return;
    }
    let worst = 0;
    let scale = 0;
    for (const [i, value] of expected.entries()) {
      const difference = Math.abs((actual[i] ?? Number.NaN) - value);
      worst = Math.max(worst, difference);
      scale = Math.max(scale, Math.abs(value));
    }
    this.#maxAbs = Math.max(this.#maxAbs, worst);
    const tolerance = 1e-4 + 1e-5 * scale;
    if (!(worst <= tolerance))
      this.fail(`${what}: off by ${worst.toExponential(2)}, allowed ${tolerance.toExponential(2)}`);
  }

  /** One number within a relative tolerance. */
  relative(what: string, actual: number, expected: number, tolerance: number): void {
    if (!(Math.abs(actual - expected) <= tolerance * Math.abs(expected)))
      this.fail(`${what}: ${actual}, expected ${expected}`);
  }

  /** The same values in the same order; `tokens` marks a difference in generated tokens. */
  same(what: string, actual: Iterable<unknown>, expected: Iterable<unknown>, tokens = false): void {
    const left = [...actual].map((value) => JSON.stringify(value));
    const right = [...expected].map((value) => JSON.stringify(value));
    const at = right.findIndex((value, i) => left[i] !== value);
    const index = at < 0 && left.length !== right.length ? right.length : at;
    if (index < 0) return;
    if (tokens) this.#tokensMatch = false;
    this.fail(`${what}: at ${index} ${left[index] ?? "nothing"}, expected ${right[index] ?? "nothing"}`);
  }

  fail(reason: string): void {
    this.#reasons.push(reason);
  }

  result(): CaseResult {
    const pass = this.#reasons.length === 0;
    const base = {
      file: this.#file,
      name: this.#name,
      maxAbs: this.#maxAbs,
      tokensMatch: this.#tokensMatch,
      pass,
    };
    return pass ? base : { ...base, reason: this.#reasons.slice(0, 3).join("; ") };
  }
}

/** Runs one case; what it throws is its failure. */
export async function runCase(file: string, name: string, body: (check: Check) => Promise<void>): Promise<CaseResult> {
  const check = new Check(file, name);
  try {
    await body(check);
  } catch (error) {
    check.fail(error instanceof Error ? error.message : String(error));
  }
  return check.result();
}
