// Errors: a code decides its details.
import { expectTypeOf } from "expect-type";
import { C2CError, type Device, type ErrorCode, type ErrorDetails, isC2CError } from "../../lib/index.js";

expectTypeOf<ErrorCode>().toEqualTypeOf<
  | "SHAPE_MISMATCH"
  | "OUT_OF_MEMORY"
  | "FILE_INVALID"
  | "IO_FAILED"
  | "UNSUPPORTED"
  | "TOKENS_FOREIGN"
  | "CACHE_FULL"
  | "CACHE_BUSY"
  | "CACHE_FOREIGN"
  | "DISPOSED"
  | "OPTION_INVALID"
  | "DOWNLOAD_FAILED"
  | "NATIVE_MISSING"
>();
expectTypeOf<C2CError>().toExtend<Error>();
expectTypeOf<C2CError["code"]>().toEqualTypeOf<ErrorCode>();
expectTypeOf<C2CError<"CACHE_FULL">["details"]>().toEqualTypeOf<ErrorDetails["CACHE_FULL"]>();
expectTypeOf(isC2CError).parameters.toEqualTypeOf<[error: unknown, code: ErrorCode]>();

const error: unknown = new C2CError("CACHE_FULL", { length: 2, capacity: 1 });
if (isC2CError(error, "CACHE_FULL")) expectTypeOf(error.details.capacity).toEqualTypeOf<number>();
if (isC2CError(error, "SHAPE_MISMATCH"))
  expectTypeOf(error.details.expected).toEqualTypeOf<readonly (number | string)[]>();
if (isC2CError(error, "OUT_OF_MEMORY")) expectTypeOf(error.details.device).toEqualTypeOf<Device>();
if (isC2CError(error, "FILE_INVALID")) expectTypeOf(error.details.reason).toEqualTypeOf<string>();
if (isC2CError(error, "IO_FAILED")) expectTypeOf(error.details.system).toEqualTypeOf<string>();
if (isC2CError(error, "UNSUPPORTED")) expectTypeOf(error.details.supported).toEqualTypeOf<readonly string[]>();
if (isC2CError(error, "DOWNLOAD_FAILED")) expectTypeOf(error.details.status).toEqualTypeOf<number | null>();
if (isC2CError(error, "NATIVE_MISSING"))
  expectTypeOf(error.details.tried[0]?.cause).toEqualTypeOf<string | undefined>();

export function wrong() {
  // @ts-expect-error no such code
  new C2CError("NOT_FOUND", {});
  // @ts-expect-error details of another code
  new C2CError("CACHE_FULL", { option: "capacity", reason: "" });
  // @ts-expect-error aborts are no C2CError: they reject with the signal's reason
  isC2CError(error, "ABORTED");
  // @ts-expect-error details of another code
  if (isC2CError(error, "CACHE_BUSY")) error.details.capacity;
}
