import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { isMainThread } from "node:worker_threads";
import type { Native, NativeCancel } from "../typings/native.js";
import { C2CError, type ErrorCode, type ErrorDetails } from "./errors.js";

const HOME = dirname(dirname(fileURLToPath(import.meta.url)));
/** The addon is tied to one minor version of libtorch. */
const LIBTORCH = "2.13";
const FIX = ["npm run demo (or npm test): sets everything up first", "node scripts/setup.mjs"];
const CODES: Readonly<Record<ErrorCode, true>> = {
  SHAPE_MISMATCH: true,
  OUT_OF_MEMORY: true,
  FILE_INVALID: true,
  IO_FAILED: true,
  UNSUPPORTED: true,
  TOKENS_FOREIGN: true,
  CACHE_FULL: true,
  CACHE_BUSY: true,
  CACHE_FOREIGN: true,
  DISPOSED: true,
  OPTION_INVALID: true,
  DOWNLOAD_FAILED: true,
  NATIVE_MISSING: true,
};

interface Loader {
  open(path: string): void;
}
type Tried = ErrorDetails["NATIVE_MISSING"]["tried"][number];

const load = createRequire(import.meta.url);
let loaded: Native | undefined;

/**
 * The native addon, loaded at the first call together with the libtorch it stands on.
 * Throws NATIVE_MISSING with every path that was tried and why it failed.
 */
export function native(): Native {
  loaded ??= open();
  return loaded;
}

function open(): Native {
  const tried: Tried[] = [];
  for (const folder of [join(HOME, "build/Release"), join(HOME, "prebuilds", `${process.platform}-${process.arch}`)]) {
    const loader = attempt<Loader>(join(folder, "loader.node"), tried);
    if (!loader || !openLibtorch(loader, tried)) {
      continue;
    }
    const path = join(folder, "cache_to_cache.node");
    const addon = attempt<Native>(path, tried);
    if (!addon) {
      continue;
    }
    const version = addon.info().libtorch;
    if (!version.startsWith(`${LIBTORCH}.`)) {
      tried.push({ path, cause: `libtorch is ${version}, this package is built for ${LIBTORCH}` });
      continue;
    }
    if (isMainThread) {
      // The executor must be joined before libtorch's statics go. Worker threads share it and leave it running.
      process.on("exit", () => addon.drain());
    }
    return addon;
  }
  const platform = `${process.platform}-${process.arch}`;
  const causes = tried.map(({ path, cause }) => `  ${path}: ${cause}`).join("\n");
  throw new C2CError(
    "NATIVE_MISSING",
    { platform, tried, fix: FIX },
    `the native part for ${platform} could not be loaded:\n${causes}\nfix: ${FIX.join("; or ")}`,
  );
}

function attempt<T>(path: string, tried: Tried[]): T | undefined {
  if (!existsSync(path)) {
    tried.push({ path, cause: "no such file" });
    return undefined;
  }
  try {
    return load(path) as T;
  } catch (error) {
    tried.push({ path, cause: messageOf(error) });
    return undefined;
  }
}

/** Opens libtorch from the first root that has it; a root that the environment names is the only one. */
function openLibtorch(loader: Loader, tried: Tried[]): boolean {
  const named = process.env.CACHE_TO_CACHE_LIBTORCH;
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "cache-to-cache");
  const roots = named ? [named] : [recordedRoot(), join(cache, "libtorch-2.13.0-cpu")];
  for (const root of new Set(roots)) {
    if (root !== undefined && openRoot(loader, root, tried)) {
      return true;
    }
  }
  return false;
}

function openRoot(loader: Loader, root: string, tried: Tried[]): boolean {
  const lib = join(root, "lib");
  let path = lib;
  try {
    const suffix = process.platform === "darwin" ? "dylib" : "so";
    const openmp = readdirSync(lib).filter((name) => /^lib[gi]?omp.*\.(so|dylib)/.test(name));
    for (const name of [...openmp, `libc10.${suffix}`, `libtorch_cpu.${suffix}`]) {
      path = join(lib, name);
      loader.open(path);
    }
    return true;
  } catch (error) {
    tried.push({ path, cause: messageOf(error) });
    return false;
  }
}

/** The libtorch that set-up built against. */
function recordedRoot(): string | undefined {
  try {
    const record: unknown = JSON.parse(readFileSync(join(HOME, "build/libtorch.json"), "utf8"));
    const root = typeof record === "object" && record !== null && "root" in record ? record.root : undefined;
    return typeof root === "string" ? root : undefined;
  } catch {
    return undefined;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Runs a native job under an AbortSignal: `job` gets the cancel handle that the signal raises (null without a signal).
 * Rejects with `signal.reason` when it was cancelled and with C2CError where the native side names a code.
 */
export async function run<T>(
  signal: AbortSignal | undefined,
  job: (cancel: NativeCancel | null) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const cancel = signal ? new (native().NativeCancel)() : null;
  const abort = () => cancel?.cancel();
  signal?.addEventListener("abort", abort, { once: true });
  try {
    return await job(cancel);
  } catch (error) {
    throw converted(error, signal);
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/** Calls the native side and throws its errors as C2CError. */
export function sync<T>(f: () => T): T {
  try {
    return f();
  } catch (error) {
    throw converted(error, undefined);
  }
}

function converted(error: unknown, signal: AbortSignal | undefined): unknown {
  if (!(error instanceof Error) || error instanceof C2CError || !("code" in error)) {
    return error;
  }
  if (error.code === "CANCELLED") {
    return signal?.aborted ? signal.reason : new DOMException("the process is ending", "AbortError");
  }
  if (!isCode(error.code) || !("details" in error)) {
    return error;
  }
  // The native side fills in what its code asks for; see typings/native.d.ts.
  return new C2CError(error.code, error.details as ErrorDetails[ErrorCode], error.message, { cause: error });
}

function isCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(CODES, code);
}
