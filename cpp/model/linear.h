// A product with a weight of the model: y = x · weightᵀ + bias.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/linear.h>

namespace c2c {

struct Linear {
  at::Tensor weight, bias;  // [out, in]; [out] or undefined

  at::Tensor operator()(const at::Tensor& x) const {
    return bias.defined() ? at::linear(x, weight, bias) : at::linear(x, weight);
  }
};

}  // namespace c2c
