import { randomBytes } from "node:crypto";
import type { SamplerOptions } from "../../typings/native.js";
import { C2CError } from "../errors.js";
import { integer, invalid } from "../options.js";
import type { GenerateOptions, Model, Sampling } from "../types.js";

/** New tokens when nothing else is asked for. */
export const defaultMaxNewTokens = 512;

/** GenerateOptions, checked and filled in. */
export interface Decoding {
  readonly sampling: Omit<SamplerOptions, "history">;
  /** null: the default, up to the context's end. */
  readonly maxNewTokens: number | null;
  readonly stop: readonly string[];
  readonly eos: ReadonlySet<number>;
  readonly logits: boolean;
  readonly signal: AbortSignal | undefined;
}

/** Checks options for one model: OPTION_INVALID. */
export function decoding(model: Model, eos: readonly number[], options: GenerateOptions = {}): Decoding {
  const { maxNewTokens, stop = [], logits = false, signal } = options;
  if (maxNewTokens !== undefined) {
    integer("maxNewTokens", maxNewTokens, 1);
  }
  if (!Array.isArray(stop) || stop.some((text) => typeof text !== "string" || text.length === 0)) {
    throw invalid("stop", "must be an array of strings that are not empty");
  }
  if (options.eos !== undefined) {
    if (!Array.isArray(options.eos)) {
      throw invalid("eos", "must be an array of token ids");
    }
    for (const id of options.eos) {
      integer("eos", id, 0, model.shape.vocab - 1);
    }
  }
  return {
    sampling: {
      ...choose(options.sampling ?? { kind: "greedy" }),
      repetitionPenalty: finite("repetitionPenalty", options.repetitionPenalty ?? 1, (x) => x > 0, "above 0"),
      presencePenalty: finite("presencePenalty", options.presencePenalty ?? 0, () => true, ""),
      frequencyPenalty: finite("frequencyPenalty", options.frequencyPenalty ?? 0, () => true, ""),
    },
    maxNewTokens: maxNewTokens ?? null,
    stop: [...stop],
    eos: new Set(options.eos ?? eos),
    logits,
    signal,
  };
}

/** Tokens that may be generated after a row at position `last`. CACHE_FULL when there is room for none. */
export function budget(model: Model, limit: number | null, last: number): number {
  const { context } = model.shape;
  const room = context - last;
  if (room < 1) {
    throw new C2CError("CACHE_FULL", { length: last + 1, capacity: context }, "no position is left in the context");
  }
  return Math.min(limit ?? defaultMaxNewTokens, room);
}

function choose(sampling: Sampling): Pick<SamplerOptions, "temperature" | "topK" | "topP" | "minP" | "seed"> {
  if (sampling.kind === "greedy") {
    return { temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0n };
  }
  if (sampling.kind !== "sample") {
    throw invalid("sampling.kind", "must be greedy or sample");
  }
  const { temperature, topP = 1, topK = 0, minP = 0, seed = randomBytes(8).readBigUInt64LE() } = sampling;
  if (typeof seed !== "bigint" || seed < 0n || seed >= 1n << 64n) {
    throw invalid("sampling.seed", "must be a bigint from 0 to 2^64 - 1");
  }
  return {
    temperature: finite("sampling.temperature", temperature, (x) => x > 0, "above 0"),
    topK: integer("sampling.topK", topK, 0),
    topP: finite("sampling.topP", topP, (x) => x > 0 && x <= 1, "above 0 and at most 1"),
    minP: finite("sampling.minP", minP, (x) => x >= 0 && x <= 1, "from 0 to 1"),
    seed,
  };
}

function finite(option: string, value: number, fits: (value: number) => boolean, range: string): number {
  if (typeof value !== "number" || !Number.isFinite(value) || !fits(value)) {
    throw invalid(option, `must be a finite number ${range}`.trimEnd());
  }
  return value;
}
