import * as v from "valibot";
import { C2CError } from "../../errors.js";
import { invalid } from "../../weights/file.js";

const size = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(Number.MAX_SAFE_INTEGER));
const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const positive = v.pipe(v.number(), v.finite(), v.gtValue(0));

/** Kinds of values in a config.json. */
export const kinds = {
  /** 1 or more. */
  size,
  /** 0 or more. */
  count,
  positive,
  flag: v.boolean(),
  text: v.string(),
  texts: v.array(v.string()),
  object: v.record(v.string(), v.unknown()),
} as const;

/** A config.json, read key by key; every error names the key. `null` counts as missing, as in transformers. */
export class ConfigFile {
  constructor(
    readonly path: string,
    readonly values: Readonly<Record<string, unknown>>,
    readonly at = "",
  ) {}

  /** Whether the key is there and not null. */
  has(key: string): boolean {
    return this.values[key] !== undefined && this.values[key] !== null;
  }

  /** A needed value. Errors: FILE_INVALID naming the key. */
  need<T>(key: string, kind: v.GenericSchema<unknown, T>): T {
    if (!this.has(key)) throw invalid(this.path, `key ${this.at}${key} is missing`);
    const result = v.safeParse(kind, this.values[key]);
    if (!result.success) throw invalid(this.path, `key ${this.at}${key}: ${result.issues[0].message}`);
    return result.output;
  }

  /** A value that may be missing. Errors: FILE_INVALID naming the key, when it is there and wrong. */
  maybe<T, D>(key: string, kind: v.GenericSchema<unknown, T>, fallback: D): T | D {
    return this.has(key) ? this.need(key, kind) : fallback;
  }

  /** An object inside. Errors: FILE_INVALID naming the key. */
  inside(key: string): ConfigFile {
    return new ConfigFile(this.path, this.need(key, kinds.object), `${this.at}${key}.`);
  }

  /** The same with values for keys that are missing. */
  withDefaults(defaults: Readonly<Record<string, unknown>>): ConfigFile {
    const given = Object.fromEntries(Object.entries(this.values).filter(([, value]) => value !== null));
    return new ConfigFile(this.path, { ...defaults, ...given }, this.at);
  }

  /** A FILE_INVALID error about a key. */
  wrong(key: string, reason: string): C2CError<"FILE_INVALID"> {
    return invalid(this.path, `key ${this.at}${key} ${reason}`);
  }

  /** An UNSUPPORTED error about a feature this config asks for. */
  unsupported(what: string, supported: readonly string[] = []): C2CError<"UNSUPPORTED"> {
    return new C2CError("UNSUPPORTED", { what, supported }, `${this.path}: ${what} is not supported`);
  }

  /** Refuses keys that ask for a feature which is not there: anything but null, false, or one of `harmless`. */
  refuse(key: string, harmless: readonly unknown[] = []): void {
    const value = this.values[key];
    if (value === undefined || value === null || value === false || harmless.includes(value)) return;
    throw this.unsupported(typeof value === "object" ? key : `${key} ${String(value)}`);
  }
}
