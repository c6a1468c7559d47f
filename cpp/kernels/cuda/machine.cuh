// What CUDA's own compiler alone can say: the device's instructions and memory. test/cpp/emulated has the same for a
// processor without a GPU.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace c2c::cuda {

// A block's shared memory of the size that its launch named, aligned to 16 bytes.
template <class T>
__device__ inline T* dynamic_shared() {
  extern __shared__ uint4 memory[];
  return reinterpret_cast<T*>(memory);
}

// 2ˣ, within 2e-7 of it relatively; tiny results are 0.
__device__ inline float exp2_near(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// d += a · b in float by a whole warp: a is 16 × 16, b 16 × 8, both bfloat16, two to a word, as the instruction has
// them in a warp's registers.
__device__ inline void multiply_16x8x16(float* d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                        uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

}  // namespace c2c::cuda
