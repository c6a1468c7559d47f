import { C2CError } from "./errors.js";
import { cuda } from "./native.js";
import type { Cuda } from "./setup/cuda.js";
import type { Device } from "./types.js";

/** "cpu", "cuda:0". */
export function deviceName(device: Device): string {
  return device.kind === "cpu" ? "cpu" : `cuda:${device.index}`;
}

/** The first CUDA device that is asked for opens libtorch's part for CUDA. UNSUPPORTED where the device is not there, with the reason. */
export function requireDevice(device: Device): void {
  if (device.kind === "cuda") {
    checkDevice(device, cuda());
  }
}

/** UNSUPPORTED for a CUDA device that is none of those found. */
export function checkDevice(device: Extract<Device, { kind: "cuda" }>, { devices, fault }: Cuda): void {
  if (devices.some(({ index }) => index === device.index)) {
    return;
  }
  const what = `device ${deviceName(device)}`;
  const supported = ["cpu", ...devices.map(({ index }) => `cuda:${index}`)];
  throw new C2CError(
    "UNSUPPORTED",
    { what, supported },
    `${what} is not there: ${fault ?? `devices are ${supported.join(", ")}`}`,
  );
}
