// libtorch's streams on the emulator, which has one.
#pragma once
#include <c10/core/Device.h>
#include <cuda_runtime.h>

namespace c10::cuda {

class CUDAStream {
 public:
  operator cudaStream_t() const { return nullptr; }
};
inline CUDAStream getCurrentCUDAStream() { return {}; }
inline CUDAStream getStreamFromPool(bool, DeviceIndex) { return {}; }

}  // namespace c10::cuda
