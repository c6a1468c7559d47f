import { inspect, MINOR, places } from "../../scripts/libtorch/places.mjs";
import { binaryFolders } from "./binaries.js";
import { cures } from "./load.js";

/** Set by programs that say themselves what is missing, before they import the package. */
const SILENT = Symbol.for("cache-to-cache.silent");

/** Keeps `noticeOnImport` quiet in this process. */
export function silenceNotice(): void {
  Object.assign(globalThis, { [SILENT]: true });
}

/**
 * Warns, when the package is imported, that something is missing that `setup` would bring. Looks at files only (a few
 * stat calls): a type check or a bundler that imports the package is not stopped. The first call that needs libtorch
 * throws NATIVE_MISSING. A local build knows its own libtorch and is not doubted here.
 */
export function noticeOnImport(): void {
  if (SILENT in globalThis) return;
  const folders = binaryFolders();
  if (folders.some(({ kind }) => kind === "local build")) return;
  if (folders.length > 0 && places().some(({ root }) => inspect(root).version !== undefined)) return;
  const what =
    folders.length > 0 ? `libtorch ${MINOR} was not found` : "there is no native binary for this platform yet";
  process.emitWarning(`${what}. Run: ${cures(folders)[0]}`, { type: "CacheToCache", code: "C2C_SETUP" });
}
