import type { PolicyOptions } from "../../typings/native.js";
import { invalid } from "../options.js";
import type { CachePolicy } from "../types.js";

/**
 * A policy as the native side takes it, which knows the kinds and their numbers (cpp/cache/policies) and refuses others.
 * OPTION_INVALID for what is neither a kind nor an integer.
 */
export function checkPolicy(policy: CachePolicy): PolicyOptions {
  if (typeof policy !== "object" || policy === null || typeof policy.kind !== "string") {
    throw invalid("policy", "must be an object with a `kind`");
  }
  const { kind, ...numbers } = policy;
  for (const [name, value] of Object.entries(numbers)) {
    if (value !== undefined && !Number.isSafeInteger(value)) {
      throw invalid(`policy.${name}`, `must be an integer, is ${String(value)}`);
    }
  }
  return { kind, ...numbers };
}
