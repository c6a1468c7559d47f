// The emulator's only device.
#pragma once
namespace c10::cuda {
inline int device_count() { return 1; }
}  // namespace c10::cuda
