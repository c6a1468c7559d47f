import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { inspect, libraryName, MINOR, NO_VERSION, type Place, places } from "../../scripts/libtorch/places.mjs";
import type { Native } from "../../typings/native.js";
import { C2CError, type ErrorDetails } from "../errors.js";
import { type BinaryFolder, binaryFolders, chooseAddon, HOME, PLATFORM } from "./binaries.js";

/** A path and why it was of no use. */
export type Tried = ErrorDetails["NATIVE_MISSING"]["tried"][number];
/** The addon, and where it and its libtorch came from. */
export interface Loaded {
  readonly native: Native;
  readonly path: string;
  readonly kind: BinaryFolder["kind"];
  readonly libtorch: Place;
  /** Opens another library for the whole process; throws what the system says. */
  open(path: string): void;
}
interface Loader {
  open(path: string): void;
}

const load = createRequire(import.meta.url);

/**
 * Loads libtorch, then the addon that was built for its version. Local builds come before prebuilds, and libtorch is
 * looked for in the order of `places`. NATIVE_MISSING names every path that was tried, and what to run.
 */
export function loadNative(): Loaded {
  const tried: Tried[] = [];
  const folders = binaryFolders();
  if (folders.length === 0)
    tried.push({ path: join(HOME, "prebuilds", PLATFORM), cause: "no binary for this platform" });
  for (const folder of folders) {
    const loader = attempt<Loader>(folder.loader, tried);
    if (!loader) continue;
    const loaded = fromFolder(folder, loader, tried);
    if (loaded) return loaded;
  }
  throw missing(tried, folders);
}

function fromFolder(folder: BinaryFolder, loader: Loader, tried: Tried[]): Loaded | undefined {
  const candidates = places(folder.kind === "local build" ? recordedRoot() : undefined);
  for (const libtorch of candidates) {
    // A libtorch that does not say its version is given a try: the addon knows it once it is loaded.
    const found = inspect(libtorch.root);
    if (found.fault !== undefined && found.fault !== NO_VERSION) {
      tried.push({ path: libtorch.root, cause: found.fault });
      continue;
    }
    const addon = chooseAddon(folder.addons, found.minor ?? null, found.variant ?? null);
    if (!addon) {
      tried.push({ path: folder.folder, cause: `no binary for libtorch ${found.version ?? "of unknown version"}` });
      continue;
    }
    if (!openLibtorch(loader, libtorch.root, tried)) continue;
    if (addon.variant !== "cpu") openCudaRuntime(loader, libtorch.root);
    const native = attempt<Native>(addon.path, tried);
    if (!native) continue;
    const version = native.info().libtorch;
    const wanted = addon.minor ?? MINOR;
    if (version.startsWith(`${wanted}.`))
      return { native, path: addon.path, kind: folder.kind, libtorch, open: (path) => loader.open(path) };
    tried.push({ path: addon.path, cause: `libtorch is ${version}, this binary is built for ${wanted}` });
  }
  return undefined;
}

function openLibtorch(loader: Loader, root: string, tried: Tried[]): boolean {
  const lib = join(root, "lib");
  let path = lib;
  try {
    const openmp = readdirSync(lib).filter((name) => /^(lib)?[gi]?omp.*\.(so|dylib|dll)/.test(name));
    for (const name of [...openmp, libraryName("c10"), libraryName("torch_cpu")]) {
      path = join(lib, name);
      loader.open(path);
    }
    return true;
  } catch (error) {
    tried.push({ path, cause: messageOf(error) });
    return false;
  }
}

/**
 * The small part of libtorch for CUDA that an addon with kernels is linked against; it needs no driver. The large one waits for the
 * first device (openCuda). Where it cannot be opened, the addon says what it misses.
 */
function openCudaRuntime(loader: Loader, root: string): void {
  const path = join(root, "lib", libraryName("c10_cuda"));
  try {
    if (existsSync(path)) loader.open(path);
  } catch {}
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

/** The libtorch that a local build was made against. */
export function recordedRoot(): string | undefined {
  try {
    const record: unknown = JSON.parse(readFileSync(join(HOME, "build/libtorch.json"), "utf8"));
    const root = typeof record === "object" && record !== null && "root" in record ? record.root : undefined;
    return typeof root === "string" ? root : undefined;
  } catch {
    return undefined;
  }
}

/** What to run when the native part cannot be loaded, the likeliest cure first. */
export function cures(folders: readonly BinaryFolder[]): string[] {
  if (existsSync(join(HOME, "package-lock.json")))
    return ["npm run demo (sets everything up first)", "node scripts/setup.mjs"];
  if (folders.length > 0) return ["npx cache-to-cache setup", "npx cache-to-cache doctor (says what was found)"];
  return [
    `npx cache-to-cache setup (there is no binary for ${PLATFORM}: it builds one, which needs cmake and a C++ compiler)`,
    "npx cache-to-cache doctor (says what was found)",
  ];
}

function missing(tried: readonly Tried[], folders: readonly BinaryFolder[]): C2CError<"NATIVE_MISSING"> {
  const fix = cures(folders);
  const causes = tried.map(({ path, cause }) => `  ${path}: ${cause}`).join("\n");
  return new C2CError(
    "NATIVE_MISSING",
    { platform: PLATFORM, tried, fix },
    `the native part for ${PLATFORM} could not be loaded.\nrun: ${fix.join("\n or: ")}\ntried:\n${causes}`,
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
