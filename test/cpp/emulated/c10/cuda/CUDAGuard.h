// libtorch's guards on the emulator, which has one device and one stream.
#pragma once
#include <c10/cuda/CUDAStream.h>

namespace c10::cuda {

class CUDAGuard {
 public:
  explicit CUDAGuard(Device) {}
};
class CUDAStreamGuard {
 public:
  explicit CUDAStreamGuard(CUDAStream) {}
};

}  // namespace c10::cuda
