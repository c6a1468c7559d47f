// The core, its test programs and the libFuzzer targets under AddressSanitizer and UndefinedBehaviorSanitizer, in
// build/sanitize. Clang is taken where there is one (it alone has libFuzzer, and it compiles this in a third of the time).
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { findLibtorch } from "./libtorch/find.mjs";
import { capture, Failure, reconfigure, run } from "./process.mjs";

export const home = dirname(dirname(fileURLToPath(import.meta.url)));
export const folder = join(home, "build/sanitize");
const CLANGS = ["clang++-14", "clang++-15", "clang++-16", "clang++-17", "clang++-18", "clang++-19", "clang++"];

/**
 * The environment of a sanitized program. A failed allocation returns null, as it does without a sanitizer: caches that are
 * larger than memory are part of the tests. What lies inside libtorch, and why, is named in scripts/sanitizers/*.txt.
 */
export function sanitizerEnvironment() {
  const list = (name) => join(home, "scripts/sanitizers", name);
  return {
    ...process.env,
    OMP_WAIT_POLICY: "PASSIVE",
    ASAN_OPTIONS: "detect_leaks=1:allocator_may_return_null=1:detect_stack_use_after_return=1:strict_string_checks=1",
    LSAN_OPTIONS: `suppressions=${list("leaks.txt")}:print_suppressions=0`,
    UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
  };
}

/** Builds everything; true when the libFuzzer targets are there too. Throws Failure with one sentence that names the fix. */
export async function buildSanitized() {
  const record = join(home, "build/libtorch.json");
  const previous = existsSync(record) ? JSON.parse(readFileSync(record, "utf8")) : undefined;
  const { root } = await findLibtorch({ previous });
  const clang = CLANGS.find((name) => capture(name, ["--version"]) !== undefined);
  const compiler = clang ?? process.env.CXX ?? "c++";
  const generator = capture("ninja", ["--version"]) === undefined ? "Unix Makefiles" : "Ninja";
  mkdirSync(folder, { recursive: true });
  reconfigure(folder, { CMAKE_GENERATOR: generator, CMAKE_CXX_COMPILER: compiler });
  const configured = run("cmake", [
    ...["-S", home, "-B", folder, "-G", generator, `-DTORCH_ROOT=${root}`, `-DCMAKE_CXX_COMPILER=${compiler}`],
    ...["-DC2C_ADDON=OFF", "-DC2C_TESTS=ON", "-DC2C_SANITIZE=address,undefined"],
    `-DC2C_FUZZ=${clang ? "ON" : "OFF"}`,
  ]);
  if (configured.missing) throw new Failure("cmake was not found: install cmake 3.25 or newer.");
  if (!configured.ok) throw new Failure("cmake could not configure the sanitized build: what it said stands above.");
  if (!run("cmake", ["--build", folder, "--parallel"]).ok)
    throw new Failure("The sanitized build failed: what the compiler said stands above.");
  return clang !== undefined;
}
