#include <ATen/ops/cat.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/sigmoid.h>

#include "fuser/kinds.h"
#include "fuser/mlp.h"

namespace c2c {

namespace {

const std::vector<std::string> kGranularities{"scalar", "token", "head", "head_merged", "value"};
const std::vector<std::string> kFeatures{"target_key",           "target_value",           "both",
                                         "target_projected_key", "target_projected_value", "target_projected_both"};

// Which values share one gate or weight, and what it is made from.
struct Control {
  std::string granularity, features;
  bool from_input;

  Control(const OptionReader& options, const std::string& name)
      : granularity(options.choice(name + "_granularity", "scalar", kGranularities)),
        features(options.choice(name + "_input_features", "target_key", kFeatures)),
        from_input(options.flag(name + "_depends_on_input", false)) {
    if (!from_input && granularity == "head_merged")
      unsupported(name + "_granularity \"head_merged\" without " + name + "_depends_on_input",
                  {"scalar", "token", "head", "value"});
  }

  bool merged() const { return granularity == "token" || granularity == "head_merged"; }
  // Results depend on the row alone: nothing is pooled over tokens or indexed by them.
  bool rowwise() const { return from_input == (granularity != "scalar"); }
  int64_t inputs(HeadShape receiver) const {
    const int64_t count = features == "target_projected_both"        ? 4
                          : features.starts_with("target_projected") ? 2
                          : features == "both"                       ? 2
                                                                     : 1;
    return count * (merged() ? receiver.width() : receiver.head_dim);
  }
  int64_t outputs(HeadShape receiver) const {
    return granularity == "head_merged" ? receiver.kv_heads : granularity == "value" ? receiver.head_dim : 1;
  }
  std::vector<int64_t> parameter(HeadShape receiver, int64_t length) const {
    if (granularity == "scalar") return {};
    if (granularity == "token") return {length};
    if (granularity == "head") return {length, receiver.kv_heads};
    return {length, receiver.kv_heads, receiver.head_dim};
  }

  // The generator's input: [1, f] (scalar), [tokens, heads * f] (merged) or [tokens, heads, f].
  at::Tensor input(const Rows& receiver, const Rows& projected) const {
    std::vector<at::Tensor> parts;
    const bool both = features == "both" || features == "target_projected_both";
    const bool key = both || features.ends_with("key"), value = both || features.ends_with("value");
    if (key) parts.push_back(receiver.key);
    if (value) parts.push_back(receiver.value);
    if (features.starts_with("target_projected")) {
      if (key) parts.push_back(projected.key);
      if (value) parts.push_back(projected.value);
    }
    at::Tensor all = at::cat(parts, -1);
    if (granularity == "scalar") return all.mean(at::IntArrayRef{0, 1}).unsqueeze(0);
    return merged() ? all.flatten(1) : all;
  }

  // Spreads a generator's result so that it broadcasts over [tokens, heads, dim].
  at::Tensor spread(const at::Tensor& made) const {
    if (granularity == "scalar") return made.reshape({1, 1, 1});
    return merged() ? made.unsqueeze(-1) : made;
  }

  // The same for a parameter; the first `tokens` entries are in use.
  at::Tensor spread_parameter(const at::Tensor& parameter, int64_t tokens) const {
    if (granularity == "scalar") return parameter.reshape({1, 1, 1});
    if (tokens > parameter.size(0))
      option_invalid("max_sequence_length", "a span of " + std::to_string(tokens) + " positions is longer than " +
                                                std::to_string(parameter.size(0)));
    at::Tensor used = parameter.narrow(0, 0, tokens);
    while (used.dim() < 3) used = used.unsqueeze(-1);
    return used;
  }
};

class AllInOne final : public Projector {
 public:
  explicit AllInOne(const ProjectorInit& init)
      : sharer_(init.sharer),
        receiver_(init.receiver),
        dtype_(init.dtype),
        gate_(init.options, "gate"),
        weight_(init.options, "weight"),
        keep_share_(init.options.flag("preserve_target_weight", true)),
        add_self_(init.options.flag("add_self", true)),
        temperature_(init.options.number("scalar_temperature", 0.005)) {
    if (gate_.from_input && gate_.granularity == "token")
      unsupported("gate_granularity \"token\" with gate_depends_on_input", {"scalar", "head", "head_merged", "value"});
    if (!(temperature_ > 0)) option_invalid("scalar_temperature", "must be above zero");
    const OptionReader& options = init.options;
    WeightReader& weights = init.weights;
    const int64_t hidden = options.count("hidden_dim", 512), width = receiver_.width();
    const MlpShape projection{.in = sharer_.width(),
                              .hidden = hidden,
                              .out = width,
                              .layers = options.count("num_layers", 2),
                              .activation = options.choice("activation", "gelu", {"gelu", "relu", "silu"}),
                              .norm = options.flag("use_layer_norm", true),
                              .residual = options.flag("use_residual", true),
                              .swiglu = options.flag("use_swiglu", false),
                              .dropout = options.number("dropout", 0.1)};
    key_projection_ = Mlp(weights, "key_projection", projection, init.random);
    value_projection_ = Mlp(weights, "value_projection", projection, init.random);
    if (options.flag("use_concat", false)) {
      key_combiner_ = Affine(weights, "key_combiner", 2 * width, width);
      value_combiner_ = Affine(weights, "value_combiner", 2 * width, width);
    }
    const int64_t length = options.count("max_sequence_length", 8192);
    if (gate_.from_input) {
      gate_generator_ = Mlp(weights, "gate_generator", generator(gate_, hidden, gate_.outputs(receiver_)), init.random);
    } else {
      gate_logit_ = weights.take("gate_logit", gate_.parameter(receiver_, length));
      if (gate_.granularity == "scalar") logit_ = gate_logit_.item<double>();
    }
    if (weight_.from_input) {
      const int64_t inner = options.count("weight_hidden_dim", 1024), out = weight_.outputs(receiver_);
      weight_hidden_ = Mlp(weights, "weight_hidden", generator(weight_, inner, inner), init.random);
      key_weight_head_ = Affine(weights, "key_weight_head", inner, out);
      value_weight_head_ = Affine(weights, "value_weight_head", inner, out);
    } else {
      key_weight_ = weights.take("key_weight", weight_.parameter(receiver_, length));
      value_weight_ = weights.take("value_weight", weight_.parameter(receiver_, length));
    }
    weights.ignore("gate_temperature");
  }

  Projected project(const Rows& sharer, const Rows& receiver, const Noise* noise, double temperature) const override {
    const int64_t tokens = check_rows(sharer, receiver, sharer_, receiver_);
    if (!noise && !open()) return {};
    const Rows target{receiver.key.to(dtype_), receiver.value.to(dtype_)};
    const Rows made{project_part(sharer.key, target.key, key_projection_, key_combiner_),
                    project_part(sharer.value, target.value, value_projection_, value_combiner_)};
    const auto full = wide(dtype_);
    at::Tensor logit = gate_.from_input ? gate_.spread(gate_generator_(gate_.input(target, made)))
                                        : gate_.spread_parameter(gate_logit_, tokens);
    // One gate for key and value: the key's draws serve both.
    at::Tensor gate =
        noise ? soft_gate(logit, noise->key.unsqueeze(-1), temperature).to(full) : at::gt(logit, 0).to(full);
    at::Tensor key, value;
    if (weight_.from_input) {
      at::Tensor h = weight_hidden_(weight_.input(target, made));
      key = weight_.spread(key_weight_head_(h));
      value = weight_.spread(value_weight_head_(h));
    } else {
      key = weight_.spread_parameter(key_weight_, tokens);
      value = weight_.spread_parameter(value_weight_, tokens);
    }
    key = at::sigmoid(key.to(full) / temperature_);
    value = at::sigmoid(value.to(full) / temperature_);
    return {blend(receiver.key, made.key.to(full), gate, key), blend(receiver.value, made.value.to(full), gate, value),
            key.mean(-1), value.mean(-1)};
  }

  std::optional<double> key_gate() const override { return logit_; }
  std::optional<double> value_gate() const override { return logit_; }
  bool key_open() const override { return open(); }
  bool value_open() const override { return open(); }
  bool rowwise() const override { return gate_.rowwise() && weight_.rowwise(); }

 private:
  MlpShape generator(const Control& control, int64_t hidden, int64_t out) const {
    return {.in = control.inputs(receiver_), .hidden = hidden, .out = out, .layers = 2};
  }

  // A closed gate leaves rows alone only where the receiver's share is not scaled or dropped.
  bool open() const { return !logit_ || *logit_ > 0 || keep_share_ || !add_self_; }

  at::Tensor project_part(const at::Tensor& rows, const at::Tensor& target, const Mlp& mlp,
                          const Affine& combiner) const {
    at::Tensor made = mlp(rows.to(dtype_).flatten(1));
    if (combiner.weight.defined()) made = combiner(at::cat({made, target.flatten(1)}, -1));
    return made.reshape(target.sizes());
  }

  at::Tensor blend(const at::Tensor& receiver, const at::Tensor& made, const at::Tensor& gate,
                   const at::Tensor& weight) const {
    at::Tensor out = gate * weight * made;
    if (add_self_) {
      at::Tensor own = receiver.to(made.scalar_type());
      out = (keep_share_ ? (1 - weight) * own : own) + out;
    }
    return out.to(receiver.scalar_type());
  }

  HeadShape sharer_, receiver_;
  at::ScalarType dtype_;
  Control gate_, weight_;
  bool keep_share_, add_self_;
  double temperature_;
  Mlp key_projection_, value_projection_, gate_generator_, weight_hidden_;
  Affine key_combiner_, value_combiner_, key_weight_head_, value_weight_head_;
  at::Tensor gate_logit_, key_weight_, value_weight_;
  std::optional<double> logit_;
};

}  // namespace

// A projection of the sharer's rows alone with one gate for key and value, at a choice of granularities.
std::unique_ptr<Projector> make_all_in_one(const ProjectorInit& init) { return std::make_unique<AllInOne>(init); }

}  // namespace c2c
