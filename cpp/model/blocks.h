// A decoder's blocks on plain ATen operations: differentiable, and the reference of every faster path.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/FunctionRef.h>

#include <span>
#include <vector>

#include "model/spec.h"
#include "model/weights.h"

namespace c2c {

// Cosines and sines of each row's rotary angles, [rows, 1, headDim / 2].
struct Angles {
  at::Tensor cos, sin;
};

Angles angles(const DecoderSpec& spec, size_t rope, std::span<const uint32_t> positions, at::ScalarType dtype,
              at::Device device = at::kCPU);
// Turns each head of x [rows, heads, headDim] by its row's angles.
at::Tensor rotate(const at::Tensor& x, const Angles& angles);
// x / rms(x) · (weight + normOffset) over the last dimension, the mean square in float32.
at::Tensor norm(const DecoderSpec& spec, const at::Tensor& x, const at::Tensor& weight);
// The tokens' embeddings, scaled as the spec says, [rows, hidden].
at::Tensor embed(const DecoderSpec& spec, const DecoderWeights& weights, std::span<const uint32_t> tokens);
// Attention of the last `query.size(0)` rows over all rows of key and value, [rows, heads · headDim]. A row sees itself
// and what stands before it; `positions` (of all rows) are read only where the layer has a window.
at::Tensor attention(const DecoderSpec& spec, size_t layer, const at::Tensor& query, const at::Tensor& key,
                     const at::Tensor& value, std::span<const uint32_t> positions);
// Logits of hidden rows, [rows, vocab] float32.
at::Tensor head(const DecoderSpec& spec, const DecoderWeights& weights, const at::Tensor& hidden);

// What a block leaves out: the keys and values of rows that the caches hold already, and everything behind them in the
// last block of a pure prefill.
struct BlockParts {
  bool keys = true, output = true;
};
// Takes the rows' keys and values (undefined where they are left out), [rows, kvHeads, headDim], keys rotated.
using Keep = c10::function_ref<void(const at::Tensor& key, const at::Tensor& value)>;
// Takes the rows' rotated queries [rows, heads, headDim] and returns the attended rows [rows, heads · headDim].
using Attend = c10::function_ref<at::Tensor(const at::Tensor& query)>;

// One decoder block on x [rows, hidden]: `keep` first, then `attend`, then the feed-forward. Undefined without output.
at::Tensor block(const DecoderSpec& spec, const Layer& layer, const at::Tensor& x, const Angles& angles,
                 BlockParts parts, Keep keep, Attend attend);

}  // namespace c2c
