// What the kernels share: values in float32, sums over warps and blocks.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace c2c::cuda {

constexpr int kWarp = 32;

// Launches may overlap (see launch.cuh): what a kernel reads of the one before it, and all that it writes, comes after
// wait_for_previous(). let_next_start() allows the next kernel's blocks on the device; they wait in their turn.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}
__device__ inline void let_next_start() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T>
__device__ inline T from_float(float x) {
  if constexpr (sizeof(T) == 2) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

// 16 bytes of values: 4 floats or 8 bfloat16.
template <class T>
struct Pack {
  static constexpr int kCount = 16 / static_cast<int>(sizeof(T));
  uint4 bits;
  __device__ float operator[](int i) const {
    if constexpr (sizeof(T) == 4) {
      return __uint_as_float(reinterpret_cast<const uint32_t*>(&bits)[i]);
    } else {
      const uint32_t pair = reinterpret_cast<const uint32_t*>(&bits)[i / 2];
      return __uint_as_float(i % 2 == 0 ? pair << 16 : pair & 0xffff0000U);
    }
  }
};

template <class T>
__device__ inline Pack<T> load_pack(const T* at) {
  return {*reinterpret_cast<const uint4*>(at)};
}
// Of memory that nobody writes meanwhile and that is read once.
template <class T>
__device__ inline Pack<T> stream_pack(const T* at) {
  return {__ldcs(reinterpret_cast<const uint4*>(at))};
}
template <class T>
__device__ inline void store_pack(T* at, const float* values) {
  constexpr int count = Pack<T>::kCount;
  alignas(16) T out[count];
#pragma unroll
  for (int i = 0; i < count; ++i) out[i] = from_float<T>(values[i]);
  *reinterpret_cast<uint4*>(at) = *reinterpret_cast<const uint4*>(out);
}

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffU, x, step);
  return x;
}

// Sum over the block, in all its threads. `scratch`: a float for each warp; blocks of whole warps.
__device__ inline float block_sum(float x, float* scratch) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  x = warp_sum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = lane < warps ? scratch[lane] : 0.0F;
  x = warp_sum(x);
  __syncthreads();  // scratch may be used again
  return x;
}

}  // namespace c2c::cuda
