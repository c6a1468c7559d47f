// One decoder for all families: a DecoderSpec says what differs (see lib/model/families).
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cache/kv_cache.h"
#include "core/cancel.h"

namespace c2c {

enum class Activation { kSilu, kGelu, kGeluTanh };

struct LayerSpec {
  int64_t rope = 0;    // index into DecoderSpec::ropes
  int64_t window = 0;  // 0: full attention; else a key is seen iff queryPosition - keyPosition < window
};

struct DecoderSpec {
  int64_t hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, intermediate = 0, vocab = 0, context = 0;
  double norm_eps = 1e-6, norm_offset = 0, embedding_scale = 1, query_scale = 1, logit_softcap = 0;
  Activation activation = Activation::kSilu;
  bool qk_norm = false, qkv_bias = false, output_bias = false, mlp_bias = false, post_norms = false, tied = false;
  std::vector<std::vector<double>> ropes;  // inverse frequencies, head_dim / 2 each
  std::vector<LayerSpec> layers;
  std::string prefix, head;
};

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
  int64_t bytes() const { return bytes_; }
  CacheLayout layout() const;

  // Appends each request's keys and values to its cache; returns logits [rows, vocab] float32 (undefined for kNone).
  // A cancelled forward leaves every cache as long as it was.
  std::vector<at::Tensor> forward(std::vector<Request>& requests, const CancelFlag& cancel) const;

 private:
  struct Linear {
    at::Tensor weight, bias;
  };
  struct Layer {
    at::Tensor input_norm, attention_norm, feed_norm, feed_post_norm, query_norm, key_norm;
    Linear query, key, value, output, gate, up, down;
  };

  at::Tensor norm(const at::Tensor& x, const at::Tensor& weight) const;
  at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) const;
  at::Tensor attend(const Request& request, const at::Tensor& query, int64_t layer, int64_t past) const;
  at::Tensor logits(const at::Tensor& hidden) const;

  DecoderSpec spec_;
  at::ScalarType dtype_;
  int64_t bytes_ = 0;
  at::Tensor embedding_, final_norm_, head_;
  std::vector<Layer> layers_;
};

}  // namespace c2c
