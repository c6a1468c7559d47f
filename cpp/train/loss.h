// Next-token loss: cross entropy of hidden rows against the tokens that follow them.
#pragma once
#include <ATen/core/Tensor.h>

#include "model/spec.h"
#include "model/weights.h"

namespace c2c {

// The sum over rows of -log softmax(head(hidden))[target], in float32. `hidden` [rows, hidden] are outputs of a block,
// `targets` [rows] token ids. Where there would be more than `most` logits, they are made for a slice of the rows at a
// time. `spec` and `weights` must outlive the backward pass.
at::Tensor next_token_loss(const DecoderSpec& spec, const DecoderWeights& weights, const at::Tensor& hidden,
                           const at::Tensor& targets, int64_t most = int64_t{1} << 24);

}  // namespace c2c
