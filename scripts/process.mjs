// Child processes of the set-up, and the one kind of failure it explains to people.
import { spawnSync } from "node:child_process";

/** A failure whose message is one sentence that names the fix. */
export class Failure extends Error {}

/** Writes one line to stderr. */
export function output(line) {
  process.stderr.write(`${line}\n`);
}

/** Runs a program with its output on stderr, so that stdout stays the caller's. `missing`: there is no such program. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, { stdio: ["ignore", 2, 2], ...options });
  return { ok: result.status === 0, missing: result.error?.code === "ENOENT" };
}

/** A program's stdout, or undefined when it is missing, fails or takes longer than `timeout` milliseconds. */
export function capture(command, args, timeout = 30_000) {
  const result = spawnSync(command, args, { encoding: "utf8", timeout, stdio: ["ignore", "pipe", "ignore"] });
  return result.status === 0 ? result.stdout : undefined;
}
