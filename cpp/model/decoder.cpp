#include "model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

namespace c2c {

// ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Decoder::Decoder(DecoderSpec spec, std::unordered_map<std::string, at::Tensor> weights, at::ScalarType dtype)
    : spec_(std::move(spec)), dtype_(dtype) {
  const auto& s = spec_;
  const auto take = [&](const std::string& name, std::vector<int64_t> shape) {
    auto found = weights.find(name);
    if (found == weights.end()) shape_mismatch(name, shape, {});
    at::Tensor tensor = std::move(found->second);
    weights.erase(found);
    if (tensor.sizes() != at::IntArrayRef(shape)) shape_mismatch(name, shape, tensor.sizes().vec());
    bytes_ += static_cast<int64_t>(tensor.nbytes());
    return tensor;
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    Linear l{take(name + ".weight", {out, in}), {}};
    if (bias) l.bias = take(name + ".bias", {out});
    return l;
  };
  const int64_t queries = s.heads * s.head_dim, keys = s.kv_heads * s.head_dim;
  embedding_ = take(s.prefix + "embed_tokens.weight", {s.vocab, s.hidden});
  for (size_t i = 0; i < s.layers.size(); ++i) {
    const std::string at = s.prefix + "layers." + std::to_string(i) + ".";
    Layer l;
    l.input_norm = take(at + "input_layernorm.weight", {s.hidden});
    l.attention_norm = take(at + "post_attention_layernorm.weight", {s.hidden});
    if (s.post_norms) {
      l.feed_norm = take(at + "pre_feedforward_layernorm.weight", {s.hidden});
      l.feed_post_norm = take(at + "post_feedforward_layernorm.weight", {s.hidden});
    }
    if (s.qk_norm) {
      l.query_norm = take(at + "self_attn.q_norm.weight", {s.head_dim});
      l.key_norm = take(at + "self_attn.k_norm.weight", {s.head_dim});
    }
    l.query = linear(at + "self_attn.q_proj", queries, s.hidden, s.qkv_bias);
    l.key = linear(at + "self_attn.k_proj", keys, s.hidden, s.qkv_bias);
    l.value = linear(at + "self_attn.v_proj", keys, s.hidden, s.qkv_bias);
    l.output = linear(at + "self_attn.o_proj", s.hidden, queries, s.output_bias);
    l.gate = linear(at + "mlp.gate_proj", s.intermediate, s.hidden, s.mlp_bias);
    l.up = linear(at + "mlp.up_proj", s.intermediate, s.hidden, s.mlp_bias);
    l.down = linear(at + "mlp.down_proj", s.hidden, s.intermediate, s.mlp_bias);
    layers_.push_back(std::move(l));
  }
  final_norm_ = take(s.prefix + "norm.weight", {s.hidden});
  head_ = s.tied ? embedding_ : take(s.head, {s.vocab, s.hidden});
  for (const auto& [name, tensor] : weights) {
    // Files of tied models may repeat the head; old files carry the rope's frequencies.
    const bool known = (s.tied && name == s.head) || name.ends_with("rotary_emb.inv_freq");
    if (!known) shape_mismatch(name, {}, tensor.sizes().vec());
  }
}

CacheLayout Decoder::layout() const {
  return {static_cast<int64_t>(spec_.layers.size()), spec_.kv_heads, spec_.head_dim, spec_.context, dtype_};
}

// ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────

at::Tensor Decoder::norm(const at::Tensor& x, const at::Tensor& weight) const {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor unit = wide * at::rsqrt(wide.square().mean(-1, true) + spec_.norm_eps);
  // Gemma multiplies in float32 and rounds once; the others round, then multiply.
  if (spec_.norm_offset != 0) return (unit * (weight.to(at::kFloat) + spec_.norm_offset)).to(dtype_);
  return unit.to(dtype_) * weight;
}

at::Tensor Decoder::rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) const {
  const int64_t half = spec_.head_dim / 2;
  const at::Tensor low = x.narrow(-1, 0, half), high = x.narrow(-1, half, half);
  return at::cat({low * cos - high * sin, high * cos + low * sin}, -1);
}

at::Tensor Decoder::attend(const Request& request, const at::Tensor& query, int64_t layer, int64_t past) const {
  const int64_t rows = query.size(0), seen = past + rows;
  const at::Tensor q = query.transpose(0, 1).unsqueeze(0);
  const at::Tensor k = request.cache->rows(layer, 0, 0, seen).transpose(0, 1).unsqueeze(0);
  const at::Tensor v = request.cache->rows(layer, 1, 0, seen).transpose(0, 1).unsqueeze(0);
  const int64_t window = spec_.layers[static_cast<size_t>(layer)].window;
  std::vector<int64_t> keys;  // positions of all rows, where a window may hide some
  bool cut = false;
  if (window > 0) {
    const auto& old = request.cache->positions();
    keys.assign(old.begin(), old.begin() + past);
    keys.insert(keys.end(), request.positions.begin(), request.positions.end());
    const auto [low, high] = std::minmax_element(keys.begin(), keys.end());
    cut = *high - *low >= window;
  }
  std::optional<at::Tensor> mask;
  if (cut || (rows > 1 && past > 0)) {
    const at::Tensor index = at::arange(seen, at::kLong);
    at::Tensor visible = index.unsqueeze(0) <= index.narrow(0, past, rows).unsqueeze(1);
    if (cut) {
      const at::Tensor position = at::tensor(keys, at::kLong);
      visible = visible.logical_and(position.narrow(0, past, rows).unsqueeze(1) - position.unsqueeze(0) < window);
    }
    mask = visible;
  }
  const bool causal = !mask && rows > 1;
  const at::Tensor out =
      at::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, spec_.query_scale, spec_.heads != spec_.kv_heads);
  return out.squeeze(0).transpose(0, 1).reshape({rows, spec_.heads * spec_.head_dim});
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  at::Tensor out = at::linear(norm(hidden, final_norm_), head_).to(at::kFloat);
  if (spec_.logit_softcap > 0) out = at::tanh(out / spec_.logit_softcap) * spec_.logit_softcap;
  return out.contiguous();
}

// ── forward ──────────────────────────────────────────────────────────────────────────────────────────────────────────

std::vector<at::Tensor> Decoder::forward(std::vector<Request>& requests, const CancelFlag& cancel) const {
  const auto linear = [](const at::Tensor& x, const Linear& l) {
    return l.bias.defined() ? at::linear(x, l.weight, l.bias) : at::linear(x, l.weight);
  };
  std::vector<int64_t> ids, positions, pasts;
  bool any_logits = false;
  for (auto& r : requests) {
    const int64_t count = static_cast<int64_t>(r.tokens.size());
    if (r.given && r.cache->length() < count)
      option_invalid("given", "the cache holds fewer rows than there are tokens");
    pasts.push_back(r.cache->length() - (r.given ? count : 0));
    if (!r.given) r.cache->reserve(count);
    ids.insert(ids.end(), r.tokens.begin(), r.tokens.end());
    positions.insert(positions.end(), r.positions.begin(), r.positions.end());
    any_logits = any_logits || r.logits != Logits::kNone;
  }
  const int64_t total = static_cast<int64_t>(ids.size());
  if (total == 0) return std::vector<at::Tensor>(requests.size());

  std::vector<std::pair<at::Tensor, at::Tensor>> angles;
  for (const auto& frequencies : spec_.ropes) {
    // Angles in float32, as transformers computes them.
    const at::Tensor angle =
        at::outer(at::tensor(positions, at::kLong).to(at::kFloat), at::tensor(frequencies, at::kDouble).to(at::kFloat));
    angles.emplace_back(angle.cos().to(dtype_).unsqueeze(1), angle.sin().to(dtype_).unsqueeze(1));
  }
  at::Tensor x = at::index_select(embedding_, 0, at::tensor(ids, at::kLong));
  if (spec_.embedding_scale != 1) x = x * at::tensor({spec_.embedding_scale}, at::kDouble).to(dtype_);

  for (size_t i = 0; i < layers_.size(); ++i) {
    check(cancel);
    const Layer& l = layers_[i];
    const auto layer = static_cast<int64_t>(i);
    const auto& [cos, sin] = angles[static_cast<size_t>(spec_.layers[i].rope)];
    const at::Tensor normed = norm(x, l.input_norm);
    const bool all_given = std::all_of(requests.begin(), requests.end(), [](const Request& r) { return r.given; });
    at::Tensor k, v;
    if (!all_given) {
      k = linear(normed, l.key).view({total, spec_.kv_heads, spec_.head_dim});
      v = linear(normed, l.value).view({total, spec_.kv_heads, spec_.head_dim});
      if (spec_.qk_norm) k = norm(k, l.key_norm);
      k = rotate(k, cos, sin);
    }
    int64_t row = 0;
    for (size_t n = 0; n < requests.size(); ++n) {
      const auto count = static_cast<int64_t>(requests[n].tokens.size());
      if (!requests[n].given && count > 0) {
        requests[n].cache->rows(layer, 0, pasts[n], pasts[n] + count).copy_(k.narrow(0, row, count));
        requests[n].cache->rows(layer, 1, pasts[n], pasts[n] + count).copy_(v.narrow(0, row, count));
      }
      row += count;
    }
    // In a pure prefill nothing reads the last layer's output.
    if (!any_logits && i + 1 == layers_.size()) break;

    at::Tensor q = linear(normed, l.query).view({total, spec_.heads, spec_.head_dim});
    if (spec_.qk_norm) q = norm(q, l.query_norm);
    q = rotate(q, cos, sin);
    std::vector<at::Tensor> attended;
    row = 0;
    for (size_t n = 0; n < requests.size(); ++n) {
      const auto count = static_cast<int64_t>(requests[n].tokens.size());
      if (count > 0) attended.push_back(attend(requests[n], q.narrow(0, row, count), layer, pasts[n]));
      row += count;
    }
    at::Tensor out = linear(attended.size() == 1 ? attended[0] : at::cat(attended, 0), l.output);
    if (spec_.post_norms) out = norm(out, l.attention_norm);
    x = x + out;
    const at::Tensor feed = norm(x, spec_.post_norms ? l.feed_norm : l.attention_norm);
    at::Tensor gate = linear(feed, l.gate);
    gate = spec_.activation == Activation::kSilu
               ? at::silu(gate)
               : at::gelu(gate, spec_.activation == Activation::kGeluTanh ? "tanh" : "none");
    out = linear(gate * linear(feed, l.up), l.down);
    if (spec_.post_norms) out = norm(out, l.feed_post_norm);
    x = x + out;
  }

  std::vector<at::Tensor> results;
  int64_t row = 0;
  for (auto& r : requests) {
    const auto count = static_cast<int64_t>(r.tokens.size());
    if (!r.given) r.cache->commit(r.tokens.data(), r.positions.data(), count);
    if (r.logits == Logits::kNone || count == 0) {
      results.emplace_back();
    } else if (r.logits == Logits::kAll) {
      results.push_back(logits(x.narrow(0, row, count)));
    } else {
      results.push_back(logits(x.narrow(0, row + count - 1, 1)));
    }
    row += count;
  }
  return results;
}

}  // namespace c2c
