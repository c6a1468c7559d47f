// A decoder of two layers with random weights.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>

#include <string>
#include <unordered_map>

#include "model/decoder.h"

namespace c2c {

inline DecoderSpec spec(int64_t window) {
  DecoderSpec s;
  s.hidden = 16;
  s.heads = 4;
  s.kv_heads = 2;
  s.head_dim = 4;
  s.intermediate = 24;
  s.vocab = 32;
  s.context = 64;
  s.query_scale = 0.5;
  s.tied = true;
  s.ropes = {{1.0, 0.1}};
  s.layers = {{0, 0}, {0, window}};
  return s;
}

inline std::unordered_map<std::string, at::Tensor> weights() {
  std::unordered_map<std::string, at::Tensor> w{{"embed_tokens.weight", at::randn({32, 16})},
                                                {"norm.weight", at::ones({16})}};
  for (const std::string layer : {"layers.0.", "layers.1."}) {
    w[layer + "input_layernorm.weight"] = w[layer + "post_attention_layernorm.weight"] = at::ones({16});
    w[layer + "self_attn.q_proj.weight"] = at::randn({16, 16}) * 0.2;
    w[layer + "self_attn.k_proj.weight"] = at::randn({8, 16}) * 0.2;
    w[layer + "self_attn.v_proj.weight"] = at::randn({8, 16}) * 0.2;
    w[layer + "self_attn.o_proj.weight"] = at::randn({16, 16}) * 0.2;
    w[layer + "mlp.gate_proj.weight"] = at::randn({24, 16}) * 0.2;
    w[layer + "mlp.up_proj.weight"] = at::randn({24, 16}) * 0.2;
    w[layer + "mlp.down_proj.weight"] = at::randn({16, 24}) * 0.2;
  }
  return w;
}

}  // namespace c2c
