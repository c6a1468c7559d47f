// Whether there is a GPU for a program to run on.
#pragma once
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <cstdio>

#include "cuda/cuda.h"

namespace c2c {

// What a program returns that has none: neither passed nor failed.
constexpr int kNotRun = 77;

inline bool cuda_device() {
  if (cuda::compiled() && at::globalContext().hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 0) return true;
  std::printf("not run: %s\n", cuda::compiled() ? "no CUDA device" : "built without CUDA");
  return false;
}

}  // namespace c2c
