// cpp/kernels/cuda/machine.cuh for the emulator.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace c2c::cuda {

template <class T>
inline T* dynamic_shared() {
  return static_cast<T*>(emulated::dynamic_shared());
}

inline float exp2_near(float x) { return std::exp2f(x); }

// A lane has rows lane / 4 and that + 8 of a, columns 2 (lane % 4) and the next, and these + 8; of b column lane / 4
// and the same places; of d the same rows and columns 2 (lane % 4) and the next (PTX ISA, mma.m16n8k16).
inline void multiply_16x8x16(float* d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1,
                             unsigned line = __builtin_LINE()) {
  struct Registers {
    uint32_t a[4], b[2];
  };
  const Registers own{{a0, a1, a2, a3}, {b0, b1}};
  const emulated::Lanes all = emulated::exchange(&own, sizeof own, line);
  const auto half = [](uint32_t word, int k) { return __uint_as_float(k % 2 == 0 ? word << 16 : word & 0xffff0000U); };
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const Registers left = all.of<Registers>(row * 4 + k % 8 / 2), right = all.of<Registers>(column * 4 + k % 8 / 2);
      d[i] += half(left.a[i / 2 + k / 8 * 2], k) * half(right.b[k / 8], k);
    }
  }
}

}  // namespace c2c::cuda
