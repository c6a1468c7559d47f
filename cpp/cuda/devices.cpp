#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include "cuda/cuda.h"

namespace c2c::cuda {

namespace {
// Of the oldest architecture that kernels are built for (CMakeLists.txt).
constexpr int kOldestMajor = 8;
}  // namespace

std::vector<DeviceFacts> devices() {
  std::vector<DeviceFacts> all;
  const int count = c10::cuda::device_count();
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, i));
    all.push_back({properties.name, static_cast<int64_t>(properties.totalGlobalMem), properties.major >= kOldestMajor});
  }
  return all;
}

}  // namespace c2c::cuda
