// Where a libtorch can lie, and what a folder that may be one says of itself. Reads files only; starts nothing.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** The release that is fetched. An addon is tied to its minor version. */
export const VERSION = "2.13.0";
export const MINOR = "2.13";
/** Builds that can be fetched. */
export const VARIANTS = ["cpu", "cu130"];

const EXTENSION = { darwin: "dylib", win32: "dll" }[process.platform] ?? "so";
const PREFIX = process.platform === "win32" ? "" : "lib";
/** The fault of a folder that has the libraries and nothing that says which version they are. */
export const NO_VERSION = "no file says which version it is";
const VERSION_FILES = [
  ["build-version", /^\s*(\S+)/],
  ["version.py", /__version__\s*=\s*['"]([^'"]+)['"]/],
  ["include/torch/csrc/api/include/torch/version.h", /#define TORCH_VERSION "([^"]+)"/],
  ["include/torch/headeronly/version.h", /#define TORCH_VERSION "([^"]+)"/],
];

/** The file name of a library, e.g. libc10.so. */
export function libraryName(name) {
  return `${PREFIX}${name}.${EXTENSION}`;
}

/** Everything this package keeps for a user: `<XDG_CACHE_HOME or ~/.cache>/cache-to-cache`. */
export function home() {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "cache-to-cache");
}

/** Where our own copy of a variant lies. */
export function cacheFolder(variant = "cpu") {
  return join(home(), `libtorch-${VERSION}-${variant}`);
}

/** Where the choice made by `setup` is written: { root, version, variant, source }. */
export function choiceFile() {
  return join(home(), "libtorch.json");
}

/**
 * What a folder is as a libtorch: { version, minor, variant }, or { fault } with the reason why it cannot be used.
 * `headers` asks for what a build needs too; `minor` refuses another minor version (default: this package's).
 */
export function inspect(root, { headers = false, minor = MINOR } = {}) {
  if (!existsSync(root)) return { fault: "there is no such folder" };
  const parts = [join("lib", libraryName("torch_cpu")), join("lib", libraryName("c10"))];
  for (const part of headers ? [...parts, "include/ATen/core/Tensor.h"] : parts) {
    if (!existsSync(join(root, part))) return { fault: `${part} is missing` };
  }
  for (const [file, pattern] of VERSION_FILES) {
    const path = join(root, file);
    const version = existsSync(path) ? pattern.exec(readFileSync(path, "utf8"))?.[1] : undefined;
    if (version === undefined) continue;
    const found = /^(\d+\.\d+)\./.exec(version)?.[1] ?? version;
    if (found !== minor) return { fault: `version ${version}, but ${minor} is needed` };
    return { version, minor: found, variant: variantOf(root, version) };
  }
  return { fault: NO_VERSION };
}

/** "2.13.0+cu130" names its build; a wheel for macOS has no suffix and is for the CPU. */
function variantOf(root, version) {
  const suffix = /\+(cpu|cu\d+)/.exec(version)?.[1];
  if (suffix !== undefined) return suffix;
  const lib = join(root, "lib");
  return readdirSync(lib).some((name) => name.includes("torch_cuda")) ? "cuda" : "cpu";
}

/**
 * Places where a libtorch is looked for when the package is loaded, in order. `CACHE_TO_CACHE_LIBTORCH` is the only one
 * when it is set; `recorded` is the one that a local build was made against.
 */
export function places(recorded) {
  const named = process.env.CACHE_TO_CACHE_LIBTORCH;
  if (named) return [{ root: named, source: "CACHE_TO_CACHE_LIBTORCH" }];
  const chosen = readChoice();
  const all = [
    ...(recorded === undefined ? [] : [{ root: recorded, source: "build" }]),
    ...(chosen === undefined ? [] : [chosen]),
    ...VARIANTS.map((variant) => ({ root: cacheFolder(variant), source: "cache" })),
  ];
  return all.filter(({ root }, index) => all.findIndex((other) => other.root === root) === index);
}

/** What `setup` chose last, when its record can be read. */
export function readChoice() {
  try {
    const { root, source } = JSON.parse(readFileSync(choiceFile(), "utf8"));
    return typeof root === "string" ? { root, source: String(source) } : undefined;
  } catch {
    return undefined;
  }
}
