// Activation checkpointing: a function's inner values are dropped after the forward pass and made again in the backward
// pass, so that memory holds one function's values at a time.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace c2c {

// Tensors in, tensors out. Called twice, so it must be a pure function (random draws are its inputs).
using Stretch = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

// stretch(inputs), with the same values and gradients as a plain call. Leaves that the stretch uses besides its inputs
// (weights) get their gradients too; any other tensor that needs one must be an input.
std::vector<at::Tensor> recompute(const Stretch& stretch, const std::vector<at::Tensor>& inputs);

}  // namespace c2c
