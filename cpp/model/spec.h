// What differs between decoders. lib/model/families reads it from config.json.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

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

}  // namespace c2c
