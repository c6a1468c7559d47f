import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import naming from "node-gyp-build";

/** The package's own folder. */
export const HOME = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** What prebuilds are named after, e.g. "linux-x64". */
export const PLATFORM = `${process.platform}-${process.arch}`;

/** One addon file. A local build does not say in its name what it was built for: null. */
export interface Addon {
  readonly path: string;
  readonly minor: string | null;
  readonly variant: string | null;
}
/** A folder with a loader and the addons it may load. */
export interface BinaryFolder {
  readonly kind: "local build" | "prebuild";
  readonly folder: string;
  readonly loader: string;
  readonly addons: readonly Addon[];
}

const { parseTuple, matchTuple, parseTags, matchTags } = naming;

/** `cache-to-cache.torch-2.13.cpu.node`, and whatever tags of prebuildify (libc, armv) come after. */
const NAME = /^cache-to-cache\.torch-(\d+\.\d+)\.([a-z0-9]+)\.(?:.*\.)?node$/;

/** Folders with binaries for this platform, a local build first. */
export function binaryFolders(home: string = HOME): BinaryFolder[] {
  const build = join(home, "build/Release");
  const folders: BinaryFolder[] = [];
  if (existsSync(join(build, "cache_to_cache.node"))) {
    const addon = { path: join(build, "cache_to_cache.node"), minor: null, variant: null };
    folders.push({ kind: "local build", folder: build, loader: join(build, "loader.node"), addons: [addon] });
  }
  const prebuilds = join(home, "prebuilds");
  for (const name of list(prebuilds)) {
    if (!matchTuple(process.platform, process.arch)(parseTuple(name))) continue;
    const folder = join(prebuilds, name);
    const addons = list(folder).flatMap((file): Addon[] => {
      const [, minor, variant] = NAME.exec(file) ?? [];
      if (minor === undefined || variant === undefined) return [];
      if (!matchTags("node", process.versions.modules)(parseTags(file))) return [];
      return [{ path: join(folder, file), minor, variant }];
    });
    folders.push({ kind: "prebuild", folder, loader: join(folder, "loader.node"), addons });
  }
  return folders;
}

/**
 * The addon for a libtorch of this minor version and variant: its own build, else the one for the CPU, which any libtorch
 * of that version can carry. A local build fits what it was built for; nothing is known of it before it is loaded.
 */
export function chooseAddon(addons: readonly Addon[], minor: string | null, variant: string | null): Addon | undefined {
  const fitting = addons.filter((addon) => addon.minor === null || minor === null || addon.minor === minor);
  const exact = fitting.find((addon) => addon.variant === null || addon.variant === variant);
  return exact ?? fitting.find((addon) => addon.variant === "cpu");
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}
