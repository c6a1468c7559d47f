#include "model/weights.h"

#include <ATen/ops/cat.h>

#include <functional>

#include "core/error.h"

namespace c2c {

namespace {

using Take = std::function<at::Tensor(const std::string& name, std::vector<int64_t> shape)>;

// Builds the weights from what `take` gives for each name and shape.
DecoderWeights assemble(const DecoderSpec& s, const Take& take) {
  DecoderWeights w;
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    Linear l{take(name + ".weight", {out, in}), {}};
    if (bias) l.bias = take(name + ".bias", {out});
    return l;
  };
  const int64_t queries = s.heads * s.head_dim, keys = s.kv_heads * s.head_dim;
  w.embedding = take(s.prefix + "embed_tokens.weight", {s.vocab, s.hidden});
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
    w.layers.push_back(std::move(l));
  }
  w.final_norm = take(s.prefix + "norm.weight", {s.hidden});
  w.head = s.tied ? w.embedding : take(s.head, {s.vocab, s.hidden});
  return w;
}

}  // namespace

std::vector<std::pair<std::string, std::vector<int64_t>>> weight_shapes(const DecoderSpec& spec) {
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes;
  assemble(spec, [&](const std::string& name, std::vector<int64_t> shape) {
    shapes.emplace_back(name, std::move(shape));
    return at::Tensor();
  });
  return shapes;
}

DecoderWeights take_weights(const DecoderSpec& s, std::unordered_map<std::string, at::Tensor> tensors) {
  int64_t bytes = 0;
  DecoderWeights w = assemble(s, [&](const std::string& name, std::vector<int64_t> shape) {
    auto found = tensors.find(name);
    if (found == tensors.end()) shape_mismatch(name, shape, {});
    at::Tensor tensor = std::move(found->second);
    tensors.erase(found);
    if (tensor.sizes() != at::IntArrayRef(shape)) shape_mismatch(name, shape, tensor.sizes().vec());
    bytes += static_cast<int64_t>(tensor.nbytes());
    return tensor;
  });
  w.bytes = bytes;
  for (const auto& [name, tensor] : tensors) {
    // Files of tied models may repeat the head; old files carry the rope's frequencies.
    const bool known = (s.tied && name == s.head) || name.ends_with("rotary_emb.inv_freq");
    if (!known) shape_mismatch(name, {}, tensor.sizes().vec());
  }
  return w;
}

void stack_weights(DecoderWeights& weights) {
  const auto stack = [](std::vector<at::Tensor*> parts) {
    std::vector<at::Tensor> old;
    for (const at::Tensor* part : parts) {
      if (!part->defined()) return;
      old.push_back(*part);
    }
    const at::Tensor all = at::cat(old, 0);
    int64_t at = 0;
    for (at::Tensor* part : parts) {
      const int64_t rows = part->size(0);
      *part = all.narrow(0, at, rows);
      at += rows;
    }
  };
  for (Layer& l : weights.layers) {
    stack({&l.query.weight, &l.key.weight, &l.value.weight});
    stack({&l.query.bias, &l.key.bias, &l.value.bias});
    stack({&l.gate.weight, &l.up.weight});
    stack({&l.gate.bias, &l.up.bias});
  }
}

}  // namespace c2c
