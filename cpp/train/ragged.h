// Attention of a ragged batch: sequences of similar length are put side by side, padded on the right, and attended in
// one call. A causal mask hides what was padded, so the results are those of one call for each sequence.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "model/spec.h"

namespace c2c {

// One sequence's rows, by their numbers in the batch: `queries` in the tensor of queries, `keys` in those of keys and
// values. The last keys are the queries' own rows; each query sees them up to its own and all that stand before.
struct SequenceRows {
  std::vector<int64_t> queries, keys;
  std::vector<int64_t> positions;  // of the keys; read only where a layer has a window
};

class RaggedAttention {
 public:
  RaggedAttention(std::vector<SequenceRows> sequences, int64_t query_rows);
  // Rotated queries [rows, heads, headDim], keys and values [rows, kvHeads, headDim] -> [rows, heads · headDim].
  // Differentiable.
  at::Tensor operator()(const DecoderSpec& spec, size_t layer, const at::Tensor& query, const at::Tensor& key,
                        const at::Tensor& value) const;

 private:
  struct Group {
    std::vector<SequenceRows> sequences;
    int64_t query_rows = 0, key_rows = 0;  // of the longest
    at::Tensor queries, keys;              // row numbers, [sequences · rows]; undefined where they are all, in order
    bool causal = false;                   // no mask is needed but the causal one
    mutable std::map<int64_t, at::Tensor> masks;  // by window: what a query sees, [sequences, 1, queries, keys]
  };
  at::Tensor mask(const Group& group, int64_t window) const;

  std::vector<Group> groups_;
  at::Tensor order_;  // where each query row lies in the groups' results; undefined where they are in order
};

}  // namespace c2c
