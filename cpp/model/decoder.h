// One decoder for all families: a DecoderSpec says what differs (see lib/model/families).
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/runner.h"

namespace c2c {

class Decoder {
 public:
  // Takes its tensors out of `weights`. SHAPE_MISMATCH for a missing, extra or mis-shaped one. `dtype` is that of
  // caches and, unless they are quantised, of weights. Quantised weights are packed at once and have no plain form:
  // such a decoder cannot be trained. Weights and caches lie on `device`; UNSUPPORTED for quantised weights on another
  // than the CPU.
  Decoder(DecoderSpec spec, std::unordered_map<std::string, at::Tensor> weights, at::ScalarType dtype,
          Quantize quantize = Quantize::kNone, at::Device device = at::kCPU);
  ~Decoder();

  const DecoderSpec& spec() const { return spec_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }
  // UNSUPPORTED where they are quantised.
  const DecoderWeights& weights() const;
  int64_t bytes() const;
  CacheLayout layout() const;
  // What moves a cache's rows to other positions.
  const std::shared_ptr<const Ropes>& ropes() const { return ropes_; }

  // Appends each request's keys and values to its cache; returns logits [rows, vocab] float32 on the CPU (undefined for
  // kNone).
  // A cancelled forward leaves every cache as long as it was. Runs on packed weights (made at the first call) unless a
  // weight requires grad. One thread at a time.
  std::vector<at::Tensor> forward(std::vector<Request>& requests, const CancelFlag& cancel) const;

  // The same on a runner of the caller's, made of this decoder's spec and weights.
  std::vector<at::Tensor> forward_on(Runner& runner, std::vector<Request>& requests, const CancelFlag& cancel) const;

  // The same on plain ATen operations, whatever the weights require.
  std::vector<at::Tensor> plain_forward(std::vector<Request>& requests, const CancelFlag& cancel) const;

 private:
  // Makes room in the caches, and fills in positions.
  Batch prepare(std::vector<Request>& requests) const;
  std::vector<at::Tensor> run_plain(std::vector<Request>& requests, const Batch& batch, const CancelFlag& cancel) const;
  static void commit(std::vector<Request>& requests);
  // Null where a weight requires grad. Packed anew when a weight has changed.
  Runner* fast() const;

  DecoderSpec spec_;
  std::shared_ptr<const Ropes> ropes_;
  at::ScalarType dtype_;
  at::Device device_;
  DecoderWeights weights_;
  bool quantised_;
  mutable std::unique_ptr<Runner> fast_;
};

}  // namespace c2c
