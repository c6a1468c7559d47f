import type { PolicyOptions } from "../../typings/native.js";
import { choice, invalid } from "../options.js";
import type { CachePolicy } from "../types.js";

/** The numbers that each policy has (see cpp/cache/policies, which checks their values). */
const numbers: { readonly [Kind in CachePolicy["kind"]]: readonly (keyof Extract<CachePolicy, { kind: Kind }>)[] } = {
  sinks: ["sinks", "evict"],
};

/** A policy as the native side takes it: OPTION_INVALID for an unknown kind, an unknown number, or one that is no integer. */
export function checkPolicy(policy: CachePolicy): PolicyOptions {
  if (typeof policy !== "object" || policy === null) {
    throw invalid("policy", "must be an object with a `kind`");
  }
  const { kind, ...rest } = policy;
  const known: readonly string[] = numbers[choice("policy.kind", kind, Object.keys(numbers) as CachePolicy["kind"][])];
  for (const [name, value] of Object.entries(rest)) {
    if (!known.includes(name)) {
      throw invalid(`policy.${name}`, `is not an option of ${kind}`);
    }
    if (value !== undefined && !Number.isSafeInteger(value)) {
      throw invalid(`policy.${name}`, `must be an integer, is ${String(value)}`);
    }
  }
  return { ...policy };
}
