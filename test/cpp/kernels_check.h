// What the tests of kernels share.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include "check.h"
#include "kernels/kernels.h"

namespace c2c {

// Largest difference over the reference's largest magnitude.
inline double error_of(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor reference = expected.to(at::kDouble);
  return ((actual.to(at::kDouble) - reference).abs().max() / reference.abs().max().clamp_min(1e-30)).item<double>();
}

struct Bytes {
  explicit Bytes(int64_t size) : memory(at::zeros({size + 64}, at::TensorOptions().dtype(at::kByte))) {}
  std::byte* data() { return reinterpret_cast<std::byte*>(memory.data_ptr()); }
  at::Tensor memory;
};

}  // namespace c2c
