#include "train/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Reduction.h>
#include <ATen/ops/cross_entropy_loss.h>

#include <algorithm>

#include "model/blocks.h"
#include "train/recompute.h"

namespace c2c {

at::Tensor next_token_loss(const DecoderSpec& spec, const DecoderWeights& weights, const at::Tensor& hidden,
                           const at::Tensor& targets, int64_t most) {
  const auto loss = [&spec, &weights](const at::Tensor& rows, const at::Tensor& ids) {
    return at::cross_entropy_loss(head(spec, weights, rows), ids, {}, at::Reduction::Sum);
  };
  const int64_t rows = hidden.size(0), slice = std::max<int64_t>(1, most / spec.vocab);
  if (rows <= slice) return loss(hidden, targets);
  at::Tensor total;
  for (int64_t begin = 0; begin < rows; begin += slice) {
    const int64_t size = std::min(slice, rows - begin);
    const at::Tensor ids = targets.narrow(0, begin, size);
    const at::Tensor part = recompute([loss, ids](const auto& in) { return std::vector<at::Tensor>{loss(in[0], ids)}; },
                                      {hidden.narrow(0, begin, size)})[0];
    total = total.defined() ? total + part : part;
  }
  return total;
}

}  // namespace c2c
