import type { Device } from "./types.js";

/** What each error code says beside its message. Aborts are not here: they reject with `signal.reason`. */
export interface ErrorDetails {
  /** A tensor is missing (`actual` empty), extra (`expected` empty) or has another shape than config or pair ask for. */
  SHAPE_MISMATCH: {
    readonly tensor: string;
    readonly expected: readonly (number | string)[];
    readonly actual: readonly number[];
  };
  /** `requested` in bytes. */
  OUT_OF_MEMORY: { readonly device: Device; readonly requested: number };
  /** The file's content lies, is cut short, or is not what it should be. */
  FILE_INVALID: { readonly file: string; readonly reason: string };
  /** The system refused: missing, unreadable, a directory, disk full. `system` is Node's code (ENOENT, EACCES, EISDIR, ENOSPC, …). */
  IO_FAILED: { readonly path: string; readonly operation: string; readonly system: string };
  /** A feature, architecture or option value that is not there. */
  UNSUPPORTED: { readonly what: string; readonly supported: readonly string[] };
  /** Token ids of another vocabulary. */
  TOKENS_FOREIGN: { readonly expected: string; readonly actual: string };
  /** Positions past the cache's fixed capacity or the model's context. */
  CACHE_FULL: { readonly length: number; readonly capacity: number };
  /** A second operation on a cache that is being written. */
  CACHE_BUSY: { readonly operation: string };
  /** A cache of another model. */
  CACHE_FOREIGN: { readonly expected: string; readonly actual: string };
  /** A call on a handle after its `dispose`. */
  DISPOSED: { readonly handle: "model" | "cache" | "fuser" | "channel" | "generation" | "store" };
  /** A value that an option cannot have, with what it may be. */
  OPTION_INVALID: { readonly option: string; readonly reason: string };
  /** `status`: the HTTP status, null when no answer came. */
  DOWNLOAD_FAILED: { readonly repo: string; readonly file: string; readonly status: number | null };
  /** The addon or libtorch cannot be loaded: every path that was tried, and what to run. */
  NATIVE_MISSING: {
    readonly platform: string;
    readonly tried: readonly { readonly path: string; readonly cause: string }[];
    readonly fix: readonly string[];
  };
}
/** Names of all failures. */
export type ErrorCode = keyof ErrorDetails;

/** Every failure of this package: a stable `code` and typed `details`; the message is for people. */
export class C2CError<C extends ErrorCode = ErrorCode> extends Error {
  /** Which failure it is; stable from version to version. */
  readonly code: C;
  /** What the code says beside the message, for programs. */
  readonly details: ErrorDetails[C];
  constructor(code: C, details: ErrorDetails[C], message?: string, options?: { cause?: unknown }) {
    super(message ?? `${code}: ${JSON.stringify(details)}`, options);
    this.name = "C2CError";
    this.code = code;
    this.details = details;
  }
}

/** Narrows an unknown error to one code. */
export function isC2CError<C extends ErrorCode>(error: unknown, code: C): error is C2CError<C> {
  return error instanceof C2CError && error.code === code;
}

/** Turns a Node file-system error into IO_FAILED; anything else passes through. */
export function ioError(error: unknown, path: string, operation: string): unknown {
  if (error instanceof Error && "code" in error && typeof error.code === "string" && "syscall" in error) {
    return new C2CError("IO_FAILED", { path, operation, system: error.code }, `${operation} ${path}: ${error.code}`, {
      cause: error,
    });
  }
  return error;
}
