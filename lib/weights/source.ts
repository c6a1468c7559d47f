import { stat } from "node:fs/promises";
import { C2CError, ioError } from "../errors.js";
import type { LoadEvent, Source } from "../types.js";

/** What resolving a source may need beside the source itself. */
export interface ResolveOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((event: LoadEvent) => void) | undefined;
}

/**
 * The local folder of a source; what the hub holds is downloaded into its cache first, only the files that `want` needs.
 * Errors: IO_FAILED (a folder that is none), DOWNLOAD_FAILED, OPTION_INVALID; an abort rejects with `signal.reason`.
 */
export async function resolveSource(
  source: Source,
  want: "model" | "fuser",
  options: ResolveOptions = {},
): Promise<string> {
  options.signal?.throwIfAborted();
  if (source.kind === "hub") {
    const { resolveHub } = await import("./hub.js"); // the hub's client is large, and seldom needed
    return await resolveHub(source, want, options);
  }
  let isDirectory: boolean;
  try {
    isDirectory = (await stat(source.path)).isDirectory();
  } catch (error) {
    throw ioError(error, source.path, "open");
  }
  if (isDirectory) return source.path;
  const details = { path: source.path, operation: "open", system: "ENOTDIR" };
  throw new C2CError("IO_FAILED", details, `open ${source.path}: not a folder`);
}
