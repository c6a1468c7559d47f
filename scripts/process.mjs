// Child processes of the set-up, and the one kind of failure it explains to people.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { basename, join } from "node:path";

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

/**
 * CMake refuses a build folder that was configured elsewhere or for another generator, and keeps the compiler of its first run: where
 * that is so, what was configured in `folder` is removed. `wanted`: values by their names in CMake's cache; a program may be given
 * by its name alone. Returns whether anything was removed.
 */
export function reconfigure(folder, wanted) {
  const cache = join(folder, "CMakeCache.txt");
  if (!existsSync(cache)) return false;
  const text = readFileSync(cache, "utf8");
  const kept = (name) => new RegExp(`^${name}:\\w+=(.*)$`, "m").exec(text)?.[1];
  const same = ([name, value]) => kept(name) === value || basename(kept(name) ?? "") === value;
  const place = kept("CMAKE_CACHEFILE_DIR") ?? "";
  const moved = !existsSync(place) || realpathSync(place) !== realpathSync(folder);
  if (!moved && Object.entries(wanted).every(same)) return false;
  for (const name of ["CMakeCache.txt", "CMakeFiles"]) rmSync(join(folder, name), { recursive: true, force: true });
  return true;
}
