// Whether there is a GPU for a program to run on. A program with C2C_EMULATED is one on the emulator (emulated/), whose
// device is the processor.
#pragma once
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <cstdio>

#include "cuda/cuda.h"

namespace c2c {

// What a program returns that has none: neither passed nor failed.
constexpr int kNotRun = 77;

#ifdef C2C_EMULATED
constexpr bool kEmulated = true;
inline const at::Device kDevice(at::kCPU);
#else
constexpr bool kEmulated = false;
inline const at::Device kDevice(at::kCUDA, 0);
#endif

// Whether only what is over soon is wanted.
#ifdef C2C_SANITIZED
constexpr bool kShort = true;
#else
constexpr bool kShort = false;
#endif

inline bool cuda_device() {
  if (kEmulated) return true;
  if (cuda::compiled() && at::globalContext().hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 0) return true;
  std::printf("not run: %s\n", cuda::compiled() ? "no CUDA device" : "built without CUDA");
  return false;
}

}  // namespace c2c
