import { isMainThread } from "node:worker_threads";
import type { Native, NativeCancel } from "../typings/native.js";
import { C2CError, type ErrorCode, type ErrorDetails } from "./errors.js";
import { type Cuda, openCuda } from "./setup/cuda.js";
import { type Loaded, loadNative } from "./setup/load.js";

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

let loaded: Loaded | undefined;
let found: Cuda | undefined;

/**
 * The native addon, loaded at the first call together with the libtorch it stands on.
 * Throws NATIVE_MISSING with every path that was tried and why it failed.
 */
export function native(): Native {
  loaded ??= open();
  return loaded.native;
}

/** Opens the addon ahead of its first use, if it can be opened: why it cannot, that use says. */
export function openNative(): void {
  try {
    native();
  } catch {}
}

/** CUDA devices; the first call opens libtorch's part for CUDA. Throws NATIVE_MISSING. */
export function cuda(): Cuda {
  loaded ??= open();
  found ??= openCuda(loaded);
  return found;
}

/**
 * The addon for training. At its first backward pass libtorch looks which accelerators there are, and never again: a part for CUDA
 * that came later could not be used in this process.
 */
export function trainingNative(): Native {
  cuda();
  return native();
}

function open(): Loaded {
  const addon = loadNative();
  if (isMainThread) {
    // The executor must be joined before libtorch's statics go. Worker threads share it and leave it running.
    process.on("exit", () => addon.native.drain());
  }
  return addon;
}

/** Signals whose jobs share a cancel handle; null until the first of these jobs. */
const cancels = new WeakMap<AbortSignal, NativeCancel | null>();

/**
 * Lets all jobs under a signal share one cancel handle, and one listener that stays. For signals that live no longer than the work
 * they end: from those of others a job takes its listener back.
 */
export function shareCancel(signal: AbortSignal): void {
  cancels.set(signal, null);
}

/** The cancel handle that jobs under the signal share; undefined where they share none. */
function sharedCancel(signal: AbortSignal): NativeCancel | undefined {
  const made = cancels.get(signal);
  if (made !== null) {
    return made;
  }
  const cancel = new (native().NativeCancel)();
  signal.addEventListener("abort", () => cancel.cancel(), { once: true });
  cancels.set(signal, cancel);
  return cancel;
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
  const shared = signal ? sharedCancel(signal) : null;
  try {
    return await (signal && shared === undefined ? listening(signal, job) : job(shared ?? null));
  } catch (error) {
    throw converted(error, signal);
  }
}

/** Runs a job with a cancel handle and a listener of its own. */
async function listening<T>(signal: AbortSignal, job: (cancel: NativeCancel) => Promise<T>): Promise<T> {
  const cancel = new (native().NativeCancel)();
  const abort = () => cancel.cancel();
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await job(cancel);
  } finally {
    signal.removeEventListener("abort", abort);
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
