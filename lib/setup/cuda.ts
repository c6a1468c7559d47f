import { existsSync } from "node:fs";
import { join } from "node:path";
import { libraryName } from "../../scripts/libtorch/places.mjs";
import type { NativeDeviceFacts } from "../../typings/native.js";
import type { Loaded } from "./load.js";

/** What a process can compute on beside the CPU. */
export interface Cuda {
  /** By index. */
  readonly devices: readonly NativeDeviceFacts[];
  /** Why there are none, without a full stop; null where there are some. */
  readonly fault: string | null;
}

/**
 * Opens libtorch's part for CUDA, where it has one, and asks which devices there are. That part finds what it stands on by
 * itself: beside it in an archive, in `../../nvidia` in a Python's packages. Never throws.
 */
export function openCuda({ native, kind, libtorch, open }: Loaded): Cuda {
  const path = join(libtorch.root, "lib", libraryName("torch_cuda"));
  if (!existsSync(path)) {
    const cure =
      kind === "local build"
        ? "name one for CUDA in CACHE_TO_CACHE_LIBTORCH and set up again"
        : "`npx cache-to-cache setup --variant cu130` fetches the one for CUDA";
    return { devices: [], fault: `the libtorch in ${libtorch.root} is a build for the CPU: ${cure}` };
  }
  try {
    open(path);
  } catch (error) {
    return { devices: [], fault: error instanceof Error ? error.message : String(error) };
  }
  const devices = native.devices();
  return { devices, fault: devices.length > 0 ? null : absence(driverIsThere()) };
}

/** Why a libtorch for CUDA sees no device. */
export function absence(driver: boolean): string {
  return driver
    ? "libtorch finds no GPU that it can use: the driver is too old for it, or CUDA_VISIBLE_DEVICES hides what there is"
    : "libtorch finds no GPU and no NVIDIA driver";
}

/** Linux shows it; elsewhere it is taken to be there. */
function driverIsThere(): boolean {
  return (
    process.platform !== "linux" || ["/proc/driver/nvidia/version", "/dev/nvidiactl"].some((path) => existsSync(path))
  );
}
