// One decoder for all families: a DecoderSpec says what differs (see lib/model/families).
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cache/kv_cache.h"
#include "core/cancel.h"
#include "model/weights.h"

namespace c2c {

enum class Logits { kNone, kLast, kAll };

// One sequence's share of a ragged batch.
struct Request {
  KvCache* cache = nullptr;
  std::vector<uint32_t> tokens, positions;
  Logits logits = Logits::kNone;
  // The cache's last rows already hold these tokens' keys and values: only queries are computed.
  bool given = false;
};

class Decoder {
 public:
  // Takes its tensors out of `weights`. SHAPE_MISMATCH for a missing, extra or mis-shaped one.
  Decoder(DecoderSpec spec, std::unordered_map<std::string, at::Tensor> weights, at::ScalarType dtype);

  const DecoderSpec& spec() const { return spec_; }
  at::ScalarType dtype() const { return dtype_; }
  const DecoderWeights& weights() const { return weights_; }
  int64_t bytes() const { return weights_.bytes; }
  CacheLayout layout() const;

  // Appends each request's keys and values to its cache; returns logits [rows, vocab] float32 (undefined for kNone).
  // A cancelled forward leaves every cache as long as it was.
  std::vector<at::Tensor> forward(std::vector<Request>& requests, const CancelFlag& cancel) const;

 private:
  DecoderSpec spec_;
  at::ScalarType dtype_;
  DecoderWeights weights_;
};

}  // namespace c2c
