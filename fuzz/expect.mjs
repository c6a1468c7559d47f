// What every target promises: any input is read or refused by a typed error, and a result keeps the target's own promises.
import { C2CError } from "../dist/errors.js";

/** A broken promise of the code under test. */
export class Broken extends Error {}

/** Throws Broken, saying which promise, unless `ok`. */
export function expect(ok, promise) {
  if (!ok) throw new Broken(`broken promise: ${promise}`);
}

/** Runs a target on one input, which also lies at `path`: what is wrong with it, or undefined. */
export async function fault(target, bytes, path) {
  try {
    await target.run(bytes, path);
  } catch (error) {
    if (error instanceof C2CError && target.codes.includes(error.code)) return undefined;
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  return undefined;
}
