#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sigmoid.h>

#include <tuple>

#include "fuser/fast_tower.h"
#include "fuser/kinds.h"

namespace c2c {

namespace {

// Pre-norm feed-forward with a residual path and no biases.
struct Block {
  at::Tensor norm, up, down;
  double dropout;
  std::shared_ptr<at::Generator> random;
  Block(const ProjectorInit& init, const std::string& name, int64_t width, int64_t inner)
      : norm(init.weights.take(name + ".norm.weight", {width})),
        up(init.weights.take(name + ".w1.weight", {inner, width})),
        down(init.weights.take(name + ".w2.weight", {width, inner})),
        dropout(init.options.number("dropout", 0.1)),
        random(init.random) {}
  at::Tensor operator()(const at::Tensor& x) const {
    return x + drop(at::linear(at::gelu(at::linear(rms_norm(x, norm), up)), down), dropout, random);
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
    from_sharer_ = from_sharer;
    set_in(weights.take(part + "_in.weight", {width.hidden, from_sharer + from_receiver}));
    in_bias_ = weights.take(part + "_in.bias", {width.hidden});
    shared_.emplace_back(init, part + "_mlp1.blocks.0", width.hidden, width.inner);
    if (parts.weight) {
      scalar_.emplace(init, part + "_scalar_mlp2.blocks.0", width.hidden, width.hidden);
      scalar_head_ = Affine(weights, part + "_scalar_head", width.hidden, shape_.kv_heads);
    }
    for (int64_t i = 0; i < width.layers - 2; ++i)
      blocks_.emplace_back(init, part + "_proj_mlp2.blocks." + std::to_string(i), width.hidden, width.inner);
    out_ = Affine(weights, part + "_proj_out", width.hidden, shape_.width());
    if (parts.gate) {
      gate_ = weights.take(part + "_gate_logit", {});
      logit_ = gate_.item<double>();
    }
  }

  std::optional<double> logit() const { return logit_; }
  bool open() const { return !logit_ || *logit_ > 0; }
  at::ScalarType dtype() const { return in_.scalar_type(); }

  // False where it does another thing with its rows than TowerTensors says, or a weight requires grad.
  bool tensors(TowerTensors& t) const {
    if (!parts_.receiver || in_.requires_grad() || in_bias_.requires_grad() || out_.weight.requires_grad())
      return false;
    t = {in_, in_bias_, scalar_head_.weight, scalar_head_.bias, out_.weight, out_.bias, {}, {}, {}};
    for (const Block& b : shared_) t.shared.push_back({b.norm, b.up, b.down});
    for (const Block& b : blocks_) t.blocks.push_back({b.norm, b.up, b.down});
    if (scalar_) t.scalar = {scalar_->norm, scalar_->up, scalar_->down};
    return true;
  }

  void replace(const TowerTensors& t) {
    set_in(t.in);
    in_bias_ = t.in_bias;
    scalar_head_.weight = t.weight;
    scalar_head_.bias = t.weight_bias;
    out_.weight = t.out;
    out_.bias = t.out_bias;
    const auto set = [](Block& block, const TowerTensors::Block& from) {
      block.norm = from.norm, block.up = from.up, block.down = from.down;
    };
    for (size_t i = 0; i < shared_.size(); ++i) set(shared_[i], t.shared[i]);
    for (size_t i = 0; i < blocks_.size(); ++i) set(blocks_[i], t.blocks[i]);
    if (scalar_) set(*scalar_, t.scalar);
  }

  // The packed form of these weights; null where there is none or a weight requires grad.
  FastTower* fast(HeadShape sharer) const {
    const auto dtype = in_.scalar_type();
    TowerTensors t;
    if (!in_.device().is_cpu() || !FastTower::supports(sharer, shape_, dtype) || !tensors(t)) return nullptr;
    if (!fast_ || !fast_->fits(t)) {
      fast_.reset();  // the old one's memory goes first
      fast_ = std::make_unique<FastTower>(t, sharer, shape_, dtype);
    }
    return fast_.get();
  }

  // The part's new rows and its weights [tokens, heads].
  std::pair<at::Tensor, at::Tensor> operator()(const at::Tensor& sharer, const at::Tensor& receiver,
                                               const at::Tensor* uniform, double temperature) const {
    const auto dtype = in_bias_.scalar_type();
    const auto full = wide(dtype);
    const int64_t tokens = receiver.size(0);
    at::Tensor h = at::linear(sharer.to(dtype).reshape({tokens, -1}), in_sharer_, in_bias_);
    if (parts_.receiver) h = h + at::linear(receiver.to(dtype).reshape({tokens, -1}), in_receiver_);
    for (const Block& block : shared_) h = block(h);
    at::Tensor weight = parts_.weight ? at::sigmoid(scalar_head_((*scalar_)(h))).to(full)
                                      : at::ones({tokens, shape_.kv_heads}, h.options().dtype(full));
    for (const Block& block : blocks_) h = block(h);
    at::Tensor rows = out_(h).reshape({tokens, shape_.kv_heads, shape_.head_dim}).to(full);
    if (!parts_.receiver) return {rows.to(receiver.scalar_type()), weight};
    if (parts_.weight) rows = weight.unsqueeze(-1) * rows;
    if (parts_.gate && uniform) rows = soft_gate(gate_, *uniform, temperature).unsqueeze(-1) * rows;
    return {(receiver.to(full) + rows).to(receiver.scalar_type()), weight};
  }

 private:
  void set_in(at::Tensor in) {
    in_ = std::move(in);
    in_sharer_ = in_.narrow(1, 0, from_sharer_);
    if (parts_.receiver) in_receiver_ = in_.narrow(1, from_sharer_, in_.size(1) - from_sharer_);
  }

  HeadShape shape_;
  Parts parts_;
  int64_t from_sharer_ = 0;                                   // columns of the input map
  at::Tensor in_, in_sharer_, in_receiver_, in_bias_, gate_;  // the halves of the input map are kept apart: no concat
  std::vector<Block> shared_, blocks_;
  std::optional<Block> scalar_;  // where there is a weight
  Affine scalar_head_, out_;
  std::optional<double> logit_;
  mutable std::unique_ptr<FastTower> fast_;
};

// A tower's run on rows that are not differentiated.
struct Run {
  FastTower* tower;
  FastTower::Rows rows;
};

// The rows as a product of the fuser's dtype reads them; they may be the cache's own.
at::Tensor flat(const at::Tensor& rows, at::ScalarType dtype) {
  return rows.to(dtype).reshape({rows.size(0), -1}).contiguous();
}

// Key and value side by side where there are threads for both, else one after the other.
void run_all(std::vector<Run>& runs) {
  static thread_local Workspace workspace;
  constexpr int64_t kKept = int64_t{32} << 20;
  const int threads = at::get_num_threads();
  for (size_t i = 0; i < runs.size(); ++i)
    runs[i].tower->prepare(workspace, i * FastTower::kSlots, runs[i].rows, threads);
  Barrier first(threads / 2), second(threads - threads / 2);
  run_team(threads, [&](const Member& m) {
    if (runs.size() == 2 && threads > 1 && m.size == threads) {
      const bool left = m.index < threads / 2;
      const Member part =
          left ? Member{m.index, threads / 2, &first} : Member{m.index - threads / 2, threads - threads / 2, &second};
      Run& run = runs[left ? 0 : 1];
      run.tower->run(part, run.rows);
      return;
    }
    for (Run& run : runs) run.tower->run(m, run.rows);
  });
  workspace.trim(kKept);
}

class GatedTowers final : public Projector {
 public:
  GatedTowers(const ProjectorInit& init, Width width, Parts parts)
      : sharer_(init.sharer),
        receiver_(init.receiver),
        training_(init.random != nullptr),
        key_(init, "key", width, parts),
        value_(init, "value", width, parts) {
    init.weights.ignore("gate_temperature");
  }

  Projected project(const Rows& sharer, const Rows& receiver, const Noise* noise, double temperature) const override {
    const int64_t tokens = check_rows(sharer, receiver, sharer_, receiver_);
    Projected result;
    if (noise == nullptr && !training_ && fast(&sharer, nullptr, receiver, tokens, result)) return result;
    if (noise || key_.open())
      std::tie(result.key, result.key_weight) =
          key_(sharer.key, receiver.key, noise ? &noise->key : nullptr, temperature);
    if (noise || value_.open())
      std::tie(result.value, result.value_weight) =
          value_(sharer.value, receiver.value, noise ? &noise->value : nullptr, temperature);
    return result;
  }

  bool project_pieces(const RowSource& sharer, const Rows& receiver, Projected& result) const override {
    const int64_t tokens = receiver.key.size(0);
    return !training_ && sharer.count() == tokens && fast(nullptr, &sharer, receiver, tokens, result);
  }

  std::optional<double> key_gate() const override { return key_.logit(); }
  std::optional<double> value_gate() const override { return value_.logit(); }
  bool key_open() const override { return key_.open(); }
  bool value_open() const override { return value_.open(); }

  bool tower(int64_t part, TowerTensors& tensors) const override {
    return !training_ && (part == 0 ? key_ : value_).tensors(tensors);
  }
  void replace_tower(int64_t part, const TowerTensors& tensors) override {
    (part == 0 ? key_ : value_).replace(tensors);
  }

 private:
  // False, and nothing done, where something is differentiated or has no fast form. The sharer's rows are tensors or
  // come in pieces.
  bool fast(const Rows* sharer, const RowSource* pieces, const Rows& receiver, int64_t tokens,
            Projected& result) const {
    std::vector<Run> runs;
    const auto add = [&](const Tower& tower, int64_t part, const at::Tensor& onto, at::Tensor& made,
                         at::Tensor& weight) {
      if (!tower.open()) return true;
      const auto type = onto.scalar_type();
      const at::Tensor from = sharer == nullptr ? at::Tensor() : part == 0 ? sharer->key : sharer->value;
      if (from.defined() && from.requires_grad()) return false;
      if (onto.requires_grad() || (type != at::kFloat && type != at::kBFloat16)) return false;
      FastTower* fast = tower.fast(sharer_);
      if (fast == nullptr) return false;
      made = at::empty(onto.sizes(), onto.options());
      weight = at::empty({tokens, receiver_.kv_heads}, onto.options().dtype(at::kFloat));
      FastTower::Rows rows{.count = tokens,
                           .sharer = from.defined() ? flat(from, tower.dtype()) : at::Tensor(),
                           .receiver = flat(onto, tower.dtype()),
                           .base = onto.reshape({tokens, -1}),
                           .pieces = pieces,
                           .part = part,
                           .made = made.view({tokens, -1}),
                           .weight = weight};
      runs.push_back({fast, std::move(rows)});
      return true;
    };
    if (tokens == 0 || !add(key_, 0, receiver.key, result.key, result.key_weight) ||
        !add(value_, 1, receiver.value, result.value, result.value_weight)) {
      result = {};
      return false;
    }
    run_all(runs);
    return true;
  }

  HeadShape sharer_, receiver_;
  bool training_;  // the fast form knows no dropout
  Tower key_, value_;
};

Width read_width(const OptionReader& options) {
  return {options.count("hidden_dim", 1024), options.count("intermediate_dim", 1024),
          options.count("num_layers", 3, 3)};
}

}  // namespace

// Gated towers, each for key and value: concat(sharer, receiver) -> projection, scaled by a weight and a gate.
std::unique_ptr<Projector> make_gated_tower(const ProjectorInit& init) {
  return std::make_unique<GatedTowers>(init, read_width(init.options), Parts{});
}

// The same towers with parts left out, by option `ablation_level` (0 leaves out nothing).
std::unique_ptr<Projector> make_ablated_tower(const ProjectorInit& init) {
  const int64_t level = init.options.count("ablation_level", 0, 0);
  if (level > 4) unsupported("ablation_level " + std::to_string(level), {"0", "1", "2", "3", "4"});
  const Parts parts{.weight = level == 0 || level == 4, .gate = level < 2, .receiver = level != 3};
  return std::make_unique<GatedTowers>(init, read_width(init.options), parts);
}

}  // namespace c2c
