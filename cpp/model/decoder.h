// One decoder for all families: a DecoderSpec says what differs (see lib/model/families).
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cache/kv_cache.h"
#include "core/cancel.h"
#include "model/batch.h"
#include "model/weights.h"

namespace c2c {

enum class Logits { kNone, kLast, kAll };

// One sequence's share of a ragged batch.
struct Request {
  KvCache* cache = nullptr;
  // Positions left empty are those behind the cache's last row, once its policy has made room.
  std::vector<uint32_t> tokens, positions;
  Logits logits = Logits::kNone;
  // The cache's last rows already hold these tokens' keys and values: only queries are computed.
  bool given = false;
};

// How weights are stored: as they are, or in 8 or 4 bits with a scale for every 32 inputs of an output.
enum class Quantize { kNone, kInt8, kInt4 };

class FastDecoder;

class Decoder {
 public:
  // Takes its tensors out of `weights`. SHAPE_MISMATCH for a missing, extra or mis-shaped one. `dtype` is that of
  // caches and, unless they are quantised, of weights. Quantised weights are packed at once and have no plain form:
  // such a decoder cannot be trained.
  Decoder(DecoderSpec spec, std::unordered_map<std::string, at::Tensor> weights, at::ScalarType dtype,
          Quantize quantize = Quantize::kNone);
  ~Decoder();

  const DecoderSpec& spec() const { return spec_; }
  at::ScalarType dtype() const { return dtype_; }
  // UNSUPPORTED where they are quantised.
  const DecoderWeights& weights() const;
  int64_t bytes() const;
  CacheLayout layout() const;
  // What moves a cache's rows to other positions.
  const std::shared_ptr<const Ropes>& ropes() const { return ropes_; }

  // Appends each request's keys and values to its cache; returns logits [rows, vocab] float32 (undefined for kNone).
  // A cancelled forward leaves every cache as long as it was. Runs on packed weights (made at the first call) unless a
  // weight requires grad. One thread at a time.
  std::vector<at::Tensor> forward(std::vector<Request>& requests, const CancelFlag& cancel) const;

  // The same on plain ATen operations, whatever the weights require.
  std::vector<at::Tensor> plain_forward(std::vector<Request>& requests, const CancelFlag& cancel) const;

 private:
  // Makes room in the caches, and fills in positions.
  Batch prepare(std::vector<Request>& requests) const;
  std::vector<at::Tensor> run_plain(std::vector<Request>& requests, const Batch& batch, const CancelFlag& cancel) const;
  static void commit(std::vector<Request>& requests);
  // Null where a weight requires grad. Packed anew when a weight has changed.
  FastDecoder* fast() const;

  DecoderSpec spec_;
  std::shared_ptr<const Ropes> ropes_;
  at::ScalarType dtype_;
  DecoderWeights weights_;
  bool quantised_;
  mutable std::unique_ptr<FastDecoder> fast_;
};

}  // namespace c2c
