// What runs a decoder's batches where nothing is differentiated: one class for each kind of device. All do what
// blocks.h does.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
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

class Runner {
 public:
  virtual ~Runner() = default;
  // Whether these are the weights that it was made of, unchanged since.
  virtual bool fits(const DecoderWeights& weights) const = 0;
  // Bytes of its weights.
  virtual int64_t bytes() const = 0;
  // Writes the batch's keys and values into the requests' caches, which have room for them, and returns logits as
  // Decoder::forward does. Not for two threads at once.
  virtual std::vector<at::Tensor> forward(std::vector<Request>& requests, const Batch& batch,
                                          const CancelFlag& cancel) = 0;
};

// The batch's rows whose logits are wanted, in order.
std::vector<int64_t> wanted_rows(const std::vector<Request>& requests, const Batch& batch);
// Each request's share of the wanted rows' logits, undefined where it wants none.
std::vector<at::Tensor> split_logits(const at::Tensor& logits, const std::vector<Request>& requests,
                                     const Batch& batch);
// Changes with every change of a weight.
std::vector<int64_t> weight_versions(const DecoderWeights& weights);

}  // namespace c2c
