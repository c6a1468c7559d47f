// Random decoders of every kind, a story that they go through, and how far two tellings of it are apart.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "cache/kv_cache.h"
#include "check.h"
#include "model/decoder.h"

namespace c2c {

inline double error_of(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor reference = expected.to(at::kDouble);
  return ((actual.to(at::kDouble) - reference).abs().max() / reference.abs().max()).item<double>();
}

// The same of root mean squares.
inline double spread_of(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor reference = expected.to(at::kDouble);
  return ((actual.to(at::kDouble) - reference).square().mean() / reference.square().mean()).sqrt().item<double>();
}

struct Kind {
  std::string name;
  DecoderSpec spec;
};

inline DecoderSpec base() {
  DecoderSpec s;
  s.hidden = 80;
  s.heads = 6;
  s.kv_heads = 3;
  s.head_dim = 24;
  s.intermediate = 100;
  s.vocab = 150;
  s.context = 4096;
  s.query_scale = 0.2;
  s.tied = true;
  std::vector<double> rope;
  for (int64_t i = 0; i < s.head_dim / 2; ++i) rope.push_back(std::pow(100.0, -static_cast<double>(i) / 12.0));
  s.ropes = {rope};
  s.layers = {{0, 0}, {0, 0}, {0, 0}};
  return s;
}

inline std::vector<Kind> kinds() {
  std::vector<Kind> all;
  all.push_back({"plain", base()});
  DecoderSpec normed = base();
  normed.qk_norm = true;
  normed.tied = false;
  normed.head = "lm_head.weight";
  all.push_back({"query and key norms", normed});
  DecoderSpec biased = base();
  biased.qkv_bias = biased.output_bias = biased.mlp_bias = true;
  biased.heads = 7;
  biased.kv_heads = 1;
  all.push_back({"biases", biased});
  DecoderSpec gemma = base();
  gemma.post_norms = gemma.qk_norm = true;
  gemma.norm_offset = 1;
  gemma.embedding_scale = 8.9;
  gemma.activation = Activation::kGeluTanh;
  gemma.logit_softcap = 5;
  gemma.ropes.push_back(gemma.ropes[0]);
  for (double& f : gemma.ropes[1]) f *= 0.5;
  gemma.layers = {{0, 20}, {1, 0}, {0, 20}};
  all.push_back({"post norms and windows", gemma});
  DecoderSpec gelu = base();
  gelu.activation = Activation::kGelu;
  gelu.head_dim = 64;
  gelu.ropes[0].resize(32, 0.01);
  all.push_back({"gelu", gelu});
  return all;
}

inline std::unordered_map<std::string, at::Tensor> weights(const DecoderSpec& s, at::ScalarType type) {
  std::unordered_map<std::string, at::Tensor> w;
  const auto matrix = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    w[name + ".weight"] = (at::randn({out, in}) * 0.15).to(type);
    if (bias) w[name + ".bias"] = (at::randn({out}) * 0.1).to(type);
  };
  const auto norm = [&](const std::string& name, int64_t n) {
    w[name + ".weight"] = (at::rand({n}) + 0.5 - s.norm_offset).to(type);
  };
  matrix("embed_tokens", s.vocab, s.hidden, false);
  if (!s.tied) matrix("lm_head", s.vocab, s.hidden, false);
  norm("norm", s.hidden);
  for (size_t i = 0; i < s.layers.size(); ++i) {
    const std::string at = "layers." + std::to_string(i) + ".";
    norm(at + "input_layernorm", s.hidden);
    norm(at + "post_attention_layernorm", s.hidden);
    if (s.post_norms) {
      norm(at + "pre_feedforward_layernorm", s.hidden);
      norm(at + "post_feedforward_layernorm", s.hidden);
    }
    if (s.qk_norm) {
      norm(at + "self_attn.q_norm", s.head_dim);
      norm(at + "self_attn.k_norm", s.head_dim);
    }
    matrix(at + "self_attn.q_proj", s.heads * s.head_dim, s.hidden, s.qkv_bias);
    matrix(at + "self_attn.k_proj", s.kv_heads * s.head_dim, s.hidden, s.qkv_bias);
    matrix(at + "self_attn.v_proj", s.kv_heads * s.head_dim, s.hidden, s.qkv_bias);
    matrix(at + "self_attn.o_proj", s.hidden, s.heads * s.head_dim, s.output_bias);
    matrix(at + "mlp.gate_proj", s.intermediate, s.hidden, s.mlp_bias);
    matrix(at + "mlp.up_proj", s.intermediate, s.hidden, s.mlp_bias);
    matrix(at + "mlp.down_proj", s.hidden, s.intermediate, s.mlp_bias);
  }
  return w;
}

inline Request request(KvCache& cache, uint32_t from, uint32_t to, Logits logits, bool given = false) {
  Request r{&cache, {}, {}, logits, given};
  for (uint32_t i = from; i < to; ++i) {
    r.tokens.push_back((i * 37 + 11) % 150);
    r.positions.push_back(i + (i > 30 ? 7 : 0));  // positions may jump
  }
  return r;
}

using Forward = std::function<std::vector<at::Tensor>(std::vector<Request>&)>;

// A prefill, a step, a batch of steps with a second prompt in it, and a step on rows that are given.
inline std::vector<at::Tensor> story(const Decoder& model, const Forward& forward) {
  std::vector<at::Tensor> seen;
  const auto go = [&](std::vector<Request> batch) {
    for (const at::Tensor& t : forward(batch))
      if (t.defined()) seen.push_back(t.cpu().clone());
  };
  KvCache a(model.layout(), 8, true), b(model.layout(), 8, true);
  go({request(a, 0, 90, Logits::kAll)});
  go({request(a, 90, 91, Logits::kLast)});
  go({request(b, 0, 3, Logits::kNone)});
  go({request(a, 91, 92, Logits::kLast), request(b, 3, 4, Logits::kLast)});
  go({request(b, 4, 40, Logits::kLast), request(a, 92, 93, Logits::kAll), request(a, 0, 0, Logits::kAll)});
  go({request(a, 92, 93, Logits::kLast, true)});
  go({request(a, 70, 93, Logits::kLast, true), request(b, 40, 42, Logits::kLast)});
  for (int64_t layer = 0; layer < model.layout().layers; ++layer)
    for (int64_t part = 0; part < 2; ++part) seen.push_back(b.rows(layer, part, 0, b.length()).cpu().clone());
  return seen;
}

using Measure = double (*)(const at::Tensor&, const at::Tensor&);

inline double worst(Measure measure, const std::vector<at::Tensor>& actual, const std::vector<at::Tensor>& expected) {
  if (actual.size() != expected.size()) return 1e9;
  double most = 0;
  for (size_t i = 0; i < actual.size(); ++i)
    most = actual[i].sizes() == expected[i].sizes() ? worse(most, measure(actual[i], expected[i])) : 1e9;
  return most;
}

inline double average(Measure measure, const std::vector<at::Tensor>& actual, const std::vector<at::Tensor>& expected) {
  double sum = 0;
  for (size_t i = 0; i < actual.size(); ++i) sum += measure(actual[i], expected.at(i));
  return sum / static_cast<double>(actual.size());
}

}  // namespace c2c
