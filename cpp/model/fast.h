// The decoder's fast path: packed weights and the kernels of cpp/kernels, for whatever is not differentiated. It does
// what blocks.h does; test/cpp/fast_test.cpp compares the two.
#pragma once
#include <memory>
#include <vector>

#include "kernels/packed.h"
#include "kernels/workspace.h"
#include "model/runner.h"

namespace c2c {

class FastDecoder final : public Runner {
 public:
  // Packs the weights and lets the mapped memory of those that it packed go.
  FastDecoder(const DecoderSpec& spec, DecoderWeights weights, at::ScalarType dtype, Quantize quantize);

  bool fits(const DecoderWeights& weights) const override { return weight_versions(weights) == versions_; }
  int64_t bytes() const override { return packed_.bytes(); }
  std::vector<at::Tensor> forward(std::vector<Request>& requests, const Batch& batch,
                                  const CancelFlag& cancel) override;

  // Floats of an RMS norm's weight with the spec's offset, padded with zeros.
  using Norm = std::vector<float>;
  struct Block {
    Norm input_norm, attention_norm, feed_norm, feed_post_norm, query_norm, key_norm;
    Packed inputs;  // query, key and value, each padded to whole blocks of outputs
    Packed output, gate_up, down;
  };

 private:
  friend class Pass;

  const DecoderSpec& spec_;
  at::ScalarType dtype_;
  bool narrow_rows_;  // products multiply bf16 rows
  at::Tensor embedding_;
  std::vector<Block> blocks_;
  Norm final_norm_;
  Packed head_;
  PackedWeights packed_;
  Workspace workspace_;
  std::vector<int64_t> versions_;
};

}  // namespace c2c
