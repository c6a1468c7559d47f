#include "model/blocks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
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

namespace {

at::Tensor indices(std::span<const uint32_t> values, at::Device device) {
  return at::tensor(std::vector<int64_t>(values.begin(), values.end()), at::kLong).to(device);
}

// float32, or float64 for float64 models (checks of gradients).
at::ScalarType wider(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

}  // namespace

Angles angles(const DecoderSpec& spec, size_t rope, std::span<const uint32_t> positions, at::ScalarType dtype,
              at::Device device) {
  // In float32, as transformers computes them.
  const at::Tensor angle = at::outer(indices(positions, device).to(at::kFloat),
                                     at::tensor(spec.ropes[rope], at::kDouble).to(device, at::kFloat));
  return {angle.cos().to(dtype).unsqueeze(1), angle.sin().to(dtype).unsqueeze(1)};
}

at::Tensor rotate(const at::Tensor& x, const Angles& a) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor low = x.narrow(-1, 0, half), high = x.narrow(-1, half, half);
  return at::cat({low * a.cos - high * a.sin, high * a.cos + low * a.sin}, -1);
}

at::Tensor norm(const DecoderSpec& spec, const at::Tensor& x, const at::Tensor& weight) {
  const at::Tensor wide = x.to(wider(x.scalar_type()));
  const at::Tensor unit = wide * at::rsqrt(wide.square().mean(-1, true) + spec.norm_eps);
  // Gemma multiplies in float32 and rounds once; the others round, then multiply.
  if (spec.norm_offset != 0) return (unit * (weight.to(wide.scalar_type()) + spec.norm_offset)).to(x.scalar_type());
  return unit.to(x.scalar_type()) * weight;
}

at::Tensor embed(const DecoderSpec& spec, const DecoderWeights& weights, std::span<const uint32_t> tokens) {
  const at::Tensor x = at::index_select(weights.embedding, 0, indices(tokens, weights.embedding.device()));
  if (spec.embedding_scale == 1) return x;
  return x * at::tensor({spec.embedding_scale}, at::kDouble).to(x.device(), x.scalar_type());
}

at::Tensor attention(const DecoderSpec& spec, size_t layer, const at::Tensor& query, const at::Tensor& key,
                     const at::Tensor& value, std::span<const uint32_t> positions) {
  const int64_t rows = query.size(0), seen = key.size(0), past = seen - rows;
  const int64_t window = spec.layers[layer].window;
  const auto by_head = [](const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
  bool cut = false;  // whether the window hides anything at all
  if (window > 0) {
    const auto [low, high] = std::minmax_element(positions.begin(), positions.end());
    cut = int64_t{*high} - int64_t{*low} >= window;
  }
  std::optional<at::Tensor> mask;
  if (cut || (rows > 1 && past > 0)) {
    const at::Tensor index = at::arange(seen, at::TensorOptions().dtype(at::kLong).device(query.device()));
    at::Tensor visible = index.unsqueeze(0) <= index.narrow(0, past, rows).unsqueeze(1);
    if (cut) {
      const at::Tensor at = indices(positions, query.device());
      visible = visible.logical_and(at.narrow(0, past, rows).unsqueeze(1) - at.unsqueeze(0) < window);
    }
    mask = visible;
  }
  const at::Tensor out =
      at::scaled_dot_product_attention(by_head(query), by_head(key), by_head(value), mask, 0.0, !mask && rows > 1,
                                       spec.query_scale, spec.heads != spec.kv_heads);
  return out.squeeze(0).transpose(0, 1).reshape({rows, spec.heads * spec.head_dim});
}

at::Tensor head(const DecoderSpec& spec, const DecoderWeights& weights, const at::Tensor& hidden) {
  at::Tensor out = at::linear(norm(spec, hidden, weights.final_norm), weights.head);
  out = out.to(wider(out.scalar_type()));
  if (spec.logit_softcap > 0) out = at::tanh(out / spec.logit_softcap) * spec.logit_softcap;
  return out.contiguous();
}

at::Tensor block(const DecoderSpec& spec, const Layer& l, const at::Tensor& x, const Angles& a, BlockParts parts,
                 Keep keep, Attend attend) {
  const at::Tensor normed = norm(spec, x, l.input_norm);
  const auto by_head = [&](const at::Tensor& y) { return y.view({y.size(0), -1, spec.head_dim}); };
  at::Tensor k, v;
  if (parts.keys) {
    k = by_head(l.key(normed));
    v = by_head(l.value(normed));
    if (spec.qk_norm) k = norm(spec, k, l.key_norm);
    k = rotate(k, a);
  }
  keep(k, v);
  if (!parts.output) return {};

  at::Tensor q = by_head(l.query(normed));
  if (spec.qk_norm) q = norm(spec, q, l.query_norm);
  at::Tensor out = l.output(attend(rotate(q, a)));
  if (spec.post_norms) out = norm(spec, out, l.attention_norm);
  const at::Tensor middle = x + out;
  const at::Tensor feed = norm(spec, middle, spec.post_norms ? l.feed_norm : l.attention_norm);
  at::Tensor gate = l.gate(feed);
  gate = spec.activation == Activation::kSilu
             ? at::silu(gate)
             : at::gelu(gate, spec.activation == Activation::kGeluTanh ? "tanh" : "none");
  out = l.down(gate * l.up(feed));
  if (spec.post_norms) out = norm(spec, out, l.feed_post_norm);
  return middle + out;
}

}  // namespace c2c
