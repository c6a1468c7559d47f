#include "fuser/mlp.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>

namespace c2c {

Mlp::Mlp(WeightReader& weights, const std::string& name, const MlpShape& shape, std::shared_ptr<at::Generator> random)
    : activation_(shape.activation),
      residual_(shape.residual && shape.in == shape.out),
      dropout_(shape.dropout),
      random_(std::move(random)) {
  int64_t number = 0;
  auto next = [&] { return name + ".layers." + std::to_string(number++); };
  for (int64_t i = 0; i < shape.layers; ++i) {
    const bool last = i == shape.layers - 1;
    const int64_t in = i == 0 ? shape.in : shape.hidden, out = last ? shape.out : shape.hidden;
    Layer layer;
    const std::string own = next();
    if (shape.swiglu && !last) {
      layer.gate = Affine(weights, own + ".gate_proj", in, out);
      layer.map = Affine(weights, own + ".up_proj", in, out);
    } else {
      layer.map = Affine(weights, own, in, out);
    }
    if (!last) {
      if (shape.norm) {
        const std::string norm = next();
        layer.norm_weight = weights.take(norm + ".weight", {out});
        layer.norm_bias = weights.take(norm + ".bias", {out});
      }
      if (!shape.swiglu) ++number;
      if (shape.dropout > 0) ++number;
    }
    layers_.push_back(std::move(layer));
  }
}

at::Tensor Mlp::activate(const at::Tensor& x) const {
  if (activation_ == "relu") return at::relu(x);
  if (activation_ == "silu") return at::silu(x);
  return at::gelu(x);
}

at::Tensor Mlp::operator()(const at::Tensor& x) const {
  at::Tensor h = x;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const bool swiglu = layer.gate.weight.defined();
    h = swiglu ? at::silu(layer.gate(h)) * layer.map(h) : layer.map(h);
    if (layer.norm_weight.defined())
      h = at::layer_norm(h, layer.norm_weight.sizes(), layer.norm_weight, layer.norm_bias, 1e-5);
    if (i + 1 == layers_.size()) continue;
    if (!swiglu) h = activate(h);
    h = drop(h, dropout_, random_);
  }
  return residual_ ? h + x : h;
}

}  // namespace c2c
