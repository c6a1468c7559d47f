#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sigmoid.h>

#include <tuple>

#include "fuser/kinds.h"

namespace c2c {

namespace {

// Pre-norm feed-forward with a residual path and no biases.
struct Block {
  at::Tensor norm, up, down;
  Block(WeightReader& weights, const std::string& name, int64_t width, int64_t inner)
      : norm(weights.take(name + ".norm.weight", {width})),
        up(weights.take(name + ".w1.weight", {inner, width})),
        down(weights.take(name + ".w2.weight", {width, inner})) {}
  at::Tensor operator()(const at::Tensor& x) const {
    return x + at::linear(at::gelu(at::linear(rms_norm(x, norm), up)), down);
  }
};

// Which parts of the tower there are.
struct Parts {
  bool weight = true, gate = true, receiver = true;
};

struct Width {
  int64_t hidden, inner, layers;
};

class Tower {
 public:
  Tower(const ProjectorInit& init, const std::string& part, Width width, Parts parts)
      : shape_(init.receiver), parts_(parts) {
    WeightReader& weights = init.weights;
    const int64_t from_sharer = init.sharer.width(), from_receiver = parts.receiver ? init.receiver.width() : 0;
    at::Tensor in = weights.take(part + "_in.weight", {width.hidden, from_sharer + from_receiver});
    in_sharer_ = in.narrow(1, 0, from_sharer);
    if (parts.receiver) in_receiver_ = in.narrow(1, from_sharer, from_receiver);
    in_bias_ = weights.take(part + "_in.bias", {width.hidden});
    shared_.emplace_back(weights, part + "_mlp1.blocks.0", width.hidden, width.inner);
    if (parts.weight) {
      scalar_.emplace_back(weights, part + "_scalar_mlp2.blocks.0", width.hidden, width.hidden);
      scalar_head_ = Linear(weights, part + "_scalar_head", width.hidden, shape_.kv_heads);
    }
    for (int64_t i = 0; i < width.layers - 2; ++i)
      blocks_.emplace_back(weights, part + "_proj_mlp2.blocks." + std::to_string(i), width.hidden, width.inner);
    out_ = Linear(weights, part + "_proj_out", width.hidden, shape_.width());
    if (parts.gate) {
      gate_ = weights.take(part + "_gate_logit", {});
      logit_ = gate_.item<double>();
    }
  }

  std::optional<double> logit() const { return logit_; }
  bool open() const { return !logit_ || *logit_ > 0; }

  // The part's new rows and its weights [tokens, heads].
  std::pair<at::Tensor, at::Tensor> operator()(const at::Tensor& sharer, const at::Tensor& receiver,
                                               const at::Tensor* uniform, double temperature) const {
    const auto dtype = in_bias_.scalar_type();
    const auto full = wide(dtype);
    const int64_t tokens = receiver.size(0);
    at::Tensor h = at::linear(sharer.to(dtype).reshape({tokens, -1}), in_sharer_, in_bias_);
    if (parts_.receiver) h = h + at::linear(receiver.to(dtype).reshape({tokens, -1}), in_receiver_);
    for (const Block& block : shared_) h = block(h);
    at::Tensor weight =
        parts_.weight ? weight_of(h).to(full) : at::ones({tokens, shape_.kv_heads}, h.options().dtype(full));
    for (const Block& block : blocks_) h = block(h);
    at::Tensor rows = out_(h).reshape({tokens, shape_.kv_heads, shape_.head_dim}).to(full);
    if (!parts_.receiver) return {rows.to(receiver.scalar_type()), weight};
    if (parts_.weight) rows = weight.unsqueeze(-1) * rows;
    if (parts_.gate && uniform) rows = soft_gate(gate_, *uniform, temperature).unsqueeze(-1) * rows;
    return {(receiver.to(full) + rows).to(receiver.scalar_type()), weight};
  }

 private:
  at::Tensor weight_of(at::Tensor h) const {
    for (const Block& block : scalar_) h = block(h);
    return at::sigmoid(scalar_head_(h));
  }

  HeadShape shape_;
  Parts parts_;
  at::Tensor in_sharer_, in_receiver_, in_bias_, gate_;  // the halves of the input map are kept apart: no concat
  std::vector<Block> shared_, scalar_, blocks_;
  Linear scalar_head_, out_;
  std::optional<double> logit_;
};

class GatedTowers final : public Projector {
 public:
  GatedTowers(const ProjectorInit& init, Width width, Parts parts)
      : sharer_(init.sharer),
        receiver_(init.receiver),
        key_(init, "key", width, parts),
        value_(init, "value", width, parts) {
    init.weights.ignore("gate_temperature");
  }

  Projected project(const Rows& sharer, const Rows& receiver, const Noise* noise, double temperature) const override {
    check_rows(sharer, receiver, sharer_, receiver_);
    Projected result;
    if (noise || key_.open())
      std::tie(result.key, result.key_weight) =
          key_(sharer.key, receiver.key, noise ? &noise->key : nullptr, temperature);
    if (noise || value_.open())
      std::tie(result.value, result.value_weight) =
          value_(sharer.value, receiver.value, noise ? &noise->value : nullptr, temperature);
    return result;
  }

  std::optional<double> key_gate() const override { return key_.logit(); }
  std::optional<double> value_gate() const override { return value_.logit(); }
  bool key_open() const override { return key_.open(); }
  bool value_open() const override { return value_.open(); }

 private:
  HeadShape sharer_, receiver_;
  Tower key_, value_;
};

Width read_width(const OptionReader& options) {
  return {options.count("hidden_dim", 1024), options.count("intermediate_dim", 1024),
          options.count("num_layers", 3, 3)};
}

}  // namespace

std::unique_ptr<Projector> make_gated_tower(const ProjectorInit& init) {
  return std::make_unique<GatedTowers>(init, read_width(init.options), Parts{});
}

std::unique_ptr<Projector> make_ablated_tower(const ProjectorInit& init) {
  const int64_t level = init.options.count("ablation_level", 0, 0);
  if (level > 4) unsupported("ablation_level " + std::to_string(level), {"0", "1", "2", "3", "4"});
  const Parts parts{.weight = level == 0 || level == 4, .gate = level < 2, .receiver = level != 3};
  return std::make_unique<GatedTowers>(init, read_width(init.options), parts);
}

}  // namespace c2c
