// Fetches one wheel with whatever pip there is.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { capture, Failure, run } from "../process.mjs";

const FIXED = ["--no-deps", "--only-binary=:all:", "--retries", "0", "--timeout", "20", "--disable-pip-version-check"];

/** Downloads `wanted` ("torch==2.13.0") into `folder` with more arguments of pip; the wheel's path, undefined where pip fails. Throws Failure without pip. */
export function pipDownload(wanted, folder, ...more) {
  const [command, args] = pipCommand();
  const { ok } = run(command, [...args, "download", ...FIXED, ...more, wanted, "-d", folder]);
  const wheel = ok ? readdirSync(folder).find((name) => name.endsWith(".whl")) : undefined;
  return wheel === undefined ? undefined : join(folder, wheel);
}

function pipCommand() {
  for (const [command, ...args] of [["pip"], ["pip3"], ["python3", "-m", "pip"], ["python", "-m", "pip"]]) {
    if (capture(command, [...args, "--version"]) !== undefined) return [command, args];
  }
  throw new Failure("pip is not on PATH");
}
