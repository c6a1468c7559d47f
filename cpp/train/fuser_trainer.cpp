#include "train/fuser_trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "model/blocks.h"
#include "train/loss.h"
#include "train/random.h"
#include "train/recompute.h"

namespace c2c {

namespace {

at::Tensor numbers(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

void check_on_cpu(const Decoder& decoder) {
  const at::Device device = decoder.device();
  if (device.is_cpu()) return;
  throw Error("UNSUPPORTED", "training runs on the CPU alone, and a model lies on " + device.str(),
              {{"what", "training on " + device.str()}, {"supported", std::vector<std::string>{"training on cpu"}}});
}

Tensors weights_of(const TrainedProjector& projector, const Leaves& leaves) {
  Tensors own;
  for (const auto& [name, leaf] : leaves.by_name)
    if (name.starts_with(projector.prefix)) own.emplace(name.substr(projector.prefix.size()), leaf);
  return own;
}

HeadShape heads_of(const Decoder& decoder) { return {decoder.spec().kv_heads, decoder.spec().head_dim}; }

std::vector<Angles> turns_of(const Decoder& decoder, std::span<const uint32_t> positions) {
  std::vector<Angles> turns;
  for (size_t rope = 0; rope < decoder.spec().ropes.size(); ++rope)
    turns.push_back(angles(decoder.spec(), rope, positions, decoder.dtype()));
  return turns;
}

// Keys and values of a plain prefill of whole samples, up to layer `last`; without gradients.
std::vector<Rows> plain_rows(const Decoder& decoder, const Reading& reading, int64_t last, const CancelFlag& cancel) {
  const at::NoGradGuard no_grad;
  const DecoderSpec& spec = decoder.spec();
  const RaggedAttention attention(whole_sequences(reading), static_cast<int64_t>(reading.tokens.size()));
  const auto turns = turns_of(decoder, reading.positions);
  std::vector<Rows> rows;
  at::Tensor x = embed(spec, decoder.weights(), reading.tokens);
  for (int64_t layer = 0; layer <= last; ++layer) {
    check(cancel);
    const auto i = static_cast<size_t>(layer);
    const auto keep = [&](const at::Tensor& key, const at::Tensor& value) { rows.push_back({key, value}); };
    const auto attend = [&](const at::Tensor& query) {
      return attention(spec, i, query, rows.back().key, rows.back().value);
    };
    x = block(spec, decoder.weights().layers[i], x, turns[static_cast<size_t>(spec.layers[i].rope)],
              {.output = layer < last}, keep, attend);
  }
  return rows;
}

// The receiver's rows of the waves so far, layer by layer.
struct Store {
  std::vector<at::Tensor> keys, values;
};

at::Tensor joined(const std::vector<at::Tensor>& parts) { return parts.size() == 1 ? parts[0] : at::cat(parts, 0); }

Rows chosen(const Rows& rows, const at::Tensor& index) {
  return {at::index_select(rows.key, 0, index), at::index_select(rows.value, 0, index)};
}

void replace(at::Tensor& rows, const at::Tensor& index, const at::Tensor& by) {
  if (by.defined()) rows = at::index_copy(rows, 0, index, by);
}

// One block on a wave's rows. It outlives the wave's pass where it is called again in the backward pass, so it owns
// what belongs to the wave.
struct WaveLayer {
  const DecoderSpec& spec;
  const Layer& weights;
  std::shared_ptr<const RaggedAttention> attention;
  Angles turn;
  size_t layer;
  bool output;
  at::Tensor given_rows;  // rows whose keys and values are given; undefined: none

  // In: x, given key and value (undefined without), then keys and values of earlier waves. Out: x, key, value.
  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& in) const {
    at::Tensor key, value;
    const auto keep = [&](const at::Tensor& k, const at::Tensor& v) {
      key = k;
      value = v;
      if (!given_rows.defined()) return;
      replace(key, given_rows, in[1]);
      replace(value, given_rows, in[2]);
    };
    const auto attend = [&](const at::Tensor& query) {
      std::vector<at::Tensor> keys, values;
      for (size_t i = 3; i + 1 < in.size(); i += 2) keys.push_back(in[i]), values.push_back(in[i + 1]);
      keys.push_back(key);
      values.push_back(value);
      return (*attention)(spec, layer, query, joined(keys), joined(values));
    };
    const at::Tensor x = block(spec, weights, in[0], turn, {.output = output}, keep, attend);
    return {x, key, value};
  }
};

}  // namespace

FuserTrainer::FuserTrainer(std::shared_ptr<const Decoder> receiver, std::shared_ptr<const Decoder> sharer,
                           std::vector<TrainedProjector> projectors, FuserTrainerOptions options,
                           at::ScalarType weights)
    : receiver_(std::move(receiver)),
      sharer_(std::move(sharer)),
      projectors_(std::move(projectors)),
      options_(options),
      parameters_(
          [&] {
            check_on_cpu(*receiver_);
            check_on_cpu(*sharer_);
            std::vector<ParameterSpec> specs;
            for (const auto& p : projectors_) {
              if (p.receiver_layer < 0 || p.receiver_layer >= receiver_->layout().layers || p.sharer_layer < 0 ||
                  p.sharer_layer >= sharer_->layout().layers)
                option_invalid("layerMap", "it names layers that the models do not have");
              for (auto& [name, shape] :
                   projector_shapes(p.kind, p.options, heads_of(*receiver_), heads_of(*sharer_))) {
                // A hard gate has no gradient: neither it nor what makes it is touched.
                const bool gate = name.ends_with("gate_logit") || name.starts_with("gate_generator");
                specs.push_back({p.prefix + name, std::move(shape), true, options.gumbel || !gate});
              }
            }
            return specs;
          }(),
          weights),
      optimizer_(parameters_, options.optimizer) {}

void FuserTrainer::init(uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (const auto& p : projectors_) {
    for (const auto& [name, shape] : projector_shapes(p.kind, p.options, heads_of(*receiver_), heads_of(*sharer_))) {
      const at::Tensor value = parameters_.part(parameters_.values(), p.prefix + name);
      const auto option = [&](const char* key) {
        const auto found = p.options.find(key);
        const double* number = found == p.options.end() ? nullptr : std::get_if<double>(&found->second);
        return number ? *number : 0;
      };
      const bool bias = name.ends_with(".bias"), weight = name.ends_with(".weight");
      if (!bias && !weight) {
        value.fill_(name.ends_with("weight") ? option("weight_init_value") : 0);
        continue;
      }
      // A bias is drawn as its map's weight is, by the width of the map's input.
      const std::string map = p.prefix + name.substr(0, name.rfind('.')) + ".weight";
      const at::Tensor of = parameters_.leaf(map);
      if (of.dim() < 2) {
        value.fill_(weight ? 1 : 0);
      } else {
        const double bound = 1 / std::sqrt(static_cast<double>(of.size(1)));
        value.uniform_(-bound, bound, random_stream({seed, text_key(p.prefix + name)}));
      }
    }
  }
}

Projected FuserTrainer::project(const TrainedProjector& projector, const Leaves& leaves, const Rows& from,
                                const Rows& onto, const Noise* noise, double temperature,
                                const std::vector<int64_t>& runs, std::optional<uint64_t> seed) const {
  const auto heads = heads_of(*receiver_), sharer_heads = heads_of(*sharer_);
  const Stretch make = [this, &projector, &leaves, heads, sharer_heads,
                        draws = noise ? std::optional(*noise) : std::nullopt, temperature, runs,
                        seed](const std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
    // Built anew each time: casts of the weights are part of the graph, and dropout begins at the same place again.
    const auto random = seed ? std::make_shared<at::Generator>(random_stream({*seed})) : nullptr;
    const auto built = make_training_projector(projector.kind, projector.options, heads, sharer_heads,
                                               weights_of(projector, leaves), options_.compute, random);
    const auto call = [&](int64_t begin, int64_t size) {
      const auto part = [&](const at::Tensor& x) { return x.narrow(0, begin, size); };
      Noise own;
      if (draws) own = {part(draws->key), part(draws->value)};
      return built->project({part(in[0]), part(in[1])}, {part(in[2]), part(in[3])}, draws ? &own : nullptr,
                            temperature);
    };
    if (built->rowwise()) {
      const Projected out = call(0, in[0].size(0));
      return {out.key, out.value};
    }
    std::vector<at::Tensor> keys, values;
    int64_t begin = 0;
    for (const int64_t size : runs) {
      const Projected out = call(begin, size);
      if (out.key.defined()) keys.push_back(out.key);
      if (out.value.defined()) values.push_back(out.value);
      begin += size;
    }
    return {keys.empty() ? at::Tensor() : joined(keys), values.empty() ? at::Tensor() : joined(values)};
  };
  const std::vector<at::Tensor> in{from.key, from.value, onto.key, onto.value};
  const auto out = options_.recompute ? recompute(make, in) : make(in);
  return {out[0], out[1], {}, {}};
}

at::Tensor FuserTrainer::loss(const FuserBatch& batch, const Leaves& leaves, const TrainingDraw* draw,
                              const CancelFlag& cancel) const {
  const DecoderSpec& spec = receiver_->spec();
  const std::vector<Wave> waves = plan_waves(batch);
  int64_t deepest = 0;
  for (const auto& p : projectors_) deepest = std::max(deepest, p.sharer_layer);
  const std::vector<Rows> sharer = plain_rows(*sharer_, batch.sharer, deepest, cancel);
  std::vector<Rows> clean;  // the receiver's own rows, where a last section is fused
  std::vector<Store> store(spec.layers.size());
  std::vector<at::Tensor> hidden;
  std::vector<int64_t> ids;
  size_t given_noise = 0, turn = 0;

  for (const Wave& wave : waves) {
    const auto rows = static_cast<int64_t>(wave.rows.size());
    // Rows of a last section are fused before they are read, from the receiver's own rows; the others afterwards.
    struct Share {
      std::vector<int64_t> rows, sharer, runs;
    } before, after;
    size_t at = 0;
    for (const int64_t run : wave.runs) {
      Share& share = wave.last[static_cast<size_t>(wave.fused[at])] ? before : after;
      share.runs.push_back(run);
      for (int64_t i = 0; i < run; ++i, ++at) {
        share.rows.push_back(wave.fused[at]);
        share.sharer.push_back(wave.sharer[at]);
      }
    }
    const auto fuse_share = [&](const Share& share, const std::function<Rows&(size_t layer)>& target) {
      if (share.rows.empty()) return;
      const at::Tensor index = numbers(share.rows), other = numbers(share.sharer);
      const std::vector<int64_t> shape{index.size(0), spec.kv_heads};
      for (size_t p = 0; p < projectors_.size(); ++p) {
        check(cancel);
        const TrainedProjector& projector = projectors_[p];
        Rows& onto = target(static_cast<size_t>(projector.receiver_layer));
        std::optional<Noise> noise;
        if (draw && !draw->noise.empty()) {
          if (given_noise + 2 > draw->noise.size()) option_invalid("noise", "too few draws");
          noise = Noise{draw->noise[given_noise], draw->noise[given_noise + 1]};
          given_noise += 2;
          if (noise->key.sizes() != at::IntArrayRef(shape) || noise->value.sizes() != at::IntArrayRef(shape))
            option_invalid("noise", "draws are [rows, heads] of the fused rows");
        } else if (draw && options_.gumbel) {
          const at::Generator random = random_stream({draw->seed, turn, p, 0});
          const auto dtype = options_.compute == at::kDouble ? at::kDouble : at::kFloat;
          noise = Noise{at::rand(shape, random, dtype), at::rand(shape, random, dtype)};
        }
        const auto seed = draw ? std::optional(mix({draw->seed, turn, p, 1})) : std::nullopt;
        const Projected made =
            project(projector, leaves, chosen(sharer[static_cast<size_t>(projector.sharer_layer)], other),
                    chosen(onto, index), noise ? &*noise : nullptr, draw ? draw->temperature : 1, share.runs, seed);
        replace(onto.key, index, made.key);
        replace(onto.value, index, made.value);
      }
      ++turn;
    };

    at::Tensor given_rows;
    std::vector<Rows> given;
    if (!before.rows.empty()) {
      if (clean.empty())
        clean = plain_rows(*receiver_, batch.receiver, static_cast<int64_t>(spec.layers.size()) - 1, cancel);
      const at::Tensor own = numbers(wave.rows);
      for (const Rows& layer : clean) given.push_back(chosen(layer, own));
      fuse_share(before, [&](size_t layer) -> Rows& { return given[layer]; });
      std::vector<int64_t> last;
      for (int64_t row = 0; row < rows; ++row)
        if (wave.last[static_cast<size_t>(row)]) last.push_back(row);
      given_rows = numbers(last);
      for (Rows& layer : given) layer = chosen(layer, given_rows);
    }

    const auto attention = std::make_shared<const RaggedAttention>(wave.sequences, rows);
    const auto turns = turns_of(*receiver_, wave.positions);
    at::Tensor x = embed(spec, receiver_->weights(), wave.tokens);
    std::vector<Rows> made(spec.layers.size());
    for (size_t i = 0; i < spec.layers.size(); ++i) {
      check(cancel);
      const bool output = i + 1 < spec.layers.size() || !wave.targets.empty();
      const WaveLayer layer{spec,      receiver_->weights().layers[i],
                            attention, turns[static_cast<size_t>(spec.layers[i].rope)],
                            i,         output,
                            given_rows};
      std::vector<at::Tensor> in{x, given.empty() ? at::Tensor() : given[i].key,
                                 given.empty() ? at::Tensor() : given[i].value};
      for (size_t w = 0; w < store[i].keys.size(); ++w) {
        in.push_back(store[i].keys[w]);
        in.push_back(store[i].values[w]);
      }
      const bool kept =
          std::any_of(in.begin(), in.end(), [](const at::Tensor& t) { return t.defined() && t.requires_grad(); });
      auto out = options_.recompute && kept ? recompute(layer, in) : layer(in);
      x = out[0];
      made[i] = {out[1], out[2]};
    }
    fuse_share(after, [&](size_t layer) -> Rows& { return made[layer]; });
    for (size_t i = 0; i < made.size(); ++i) {
      store[i].keys.push_back(made[i].key);
      store[i].values.push_back(made[i].value);
    }
    if (!wave.targets.empty()) {
      hidden.push_back(at::index_select(x, 0, numbers(wave.targets)));
      ids.insert(ids.end(), wave.target_ids.begin(), wave.target_ids.end());
    }
  }
  if (draw && given_noise != draw->noise.size()) option_invalid("noise", "too many draws");
  return next_token_loss(spec, receiver_->weights(), joined(hidden), numbers(ids));
}

double FuserTrainer::accumulate(const FuserBatch& batch, const TrainingDraw& draw, const CancelFlag& cancel) {
  check_batch(batch);
  const auto targets = static_cast<double>(batch.target_ids.size());
  const auto compute = [&](const Leaves& leaves, int64_t share, int64_t begin, int64_t end) {
    const FuserBatch part = part_of(batch, begin, end);
    if (part.target_ids.empty()) return 0.0;
    TrainingDraw own = draw;
    if (share > 0) own.seed = mix({draw.seed, static_cast<uint64_t>(share)});
    const at::Tensor loss = this->loss(part, leaves, &own, cancel) / targets;
    check(cancel);
    if (loss.requires_grad()) (loss * draw.scale).backward();
    return loss.item<double>();
  };
  const auto& rows = batch.receiver.lengths;
  // Given draws are those of a whole batch.
  if (!draw.noise.empty()) return compute(parameters_.own(), 0, 0, static_cast<int64_t>(rows.size()));
  return shares_.accumulate(parameters_, rows, compute);
}

double FuserTrainer::evaluate(const FuserBatch& batch, const CancelFlag& cancel) const {
  const at::NoGradGuard no_grad;
  return loss(batch, parameters_.own(), nullptr, cancel).item<double>() / static_cast<double>(batch.target_ids.size());
}

double FuserTrainer::update(double learning_rate) {
  const double norm = parameters_.clip(options_.clip_norm);
  optimizer_.step(parameters_, learning_rate);
  parameters_.zero_gradients();
  return norm;
}

std::shared_ptr<Fuser> FuserTrainer::fuser(at::ScalarType dtype) const {
  const at::NoGradGuard no_grad;
  auto fuser = std::make_shared<Fuser>();
  fuser->receiver = heads_of(*receiver_);
  fuser->sharer = heads_of(*sharer_);
  fuser->dtype = dtype;
  for (const auto& p : projectors_) {
    Tensors own;
    for (const auto& [name, leaf] : weights_of(p, parameters_.own()))
      own.emplace(name, leaf.detach().to(dtype, false, true));
    fuser->layers.push_back({p.receiver_layer, p.sharer_layer,
                             make_projector(p.kind, p.options, fuser->receiver, fuser->sharer, std::move(own), dtype)});
  }
  return fuser;
}

std::vector<std::pair<std::optional<double>, std::optional<double>>> FuserTrainer::gates() const {
  std::vector<std::pair<std::optional<double>, std::optional<double>>> gates;
  for (const auto& p : projectors_) {
    const auto logit = [&](const std::string& name) -> std::optional<double> {
      const auto found = parameters_.leaves().find(p.prefix + name);
      if (found == parameters_.leaves().end() || found->second.dim() > 0) return std::nullopt;
      return found->second.item<double>();
    };
    const auto both = logit("gate_logit");
    gates.emplace_back(both ? both : logit("key_gate_logit"), both ? both : logit("value_gate_logit"));
  }
  return gates;
}

}  // namespace c2c
