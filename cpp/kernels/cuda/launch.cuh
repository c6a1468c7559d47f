// How kernels are launched.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace c2c::cuda {

inline void checked(cudaError_t result, const char* what) {
  if (result != cudaSuccess) throw std::runtime_error(std::string(what) + ": CUDA: " + cudaGetErrorString(result));
}

// `overlap`: the kernel waits for the one before it by itself (wait_for_previous), so that its blocks may come onto the
// device, and read what nobody writes, while that one ends.
template <class... Parameters, class... Arguments>
void launch(const char* what, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            bool overlap, Arguments... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  checked(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), what);
}

}  // namespace c2c::cuda
