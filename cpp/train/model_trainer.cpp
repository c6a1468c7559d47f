#include "train/model_trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "model/blocks.h"
#include "train/loss.h"
#include "train/ragged.h"
#include "train/recompute.h"

namespace c2c {

namespace {

std::vector<ParameterSpec> parameter_specs(const DecoderSpec& spec) {
  std::vector<ParameterSpec> specs;
  for (auto& [name, shape] : weight_shapes(spec)) {
    const bool matrix = shape.size() > 1;
    specs.push_back({name, std::move(shape), matrix});
  }
  return specs;
}

void check_batch(const DocumentBatch& batch) {
  const auto rows = std::accumulate(batch.lengths.begin(), batch.lengths.end(), int64_t{0});
  if (rows != static_cast<int64_t>(batch.tokens.size())) option_invalid("lengths", "do not add up to the tokens");
  if (batch.target_rows.empty() || batch.target_rows.size() != batch.target_ids.size())
    option_invalid("targets", "the batch has none");
  for (const int64_t row : batch.target_rows)
    if (row < 0 || row >= rows) option_invalid("targets", "they are no rows of the batch");
}

// Documents [begin, end).
DocumentBatch part_of(const DocumentBatch& batch, int64_t begin, int64_t end) {
  const auto lengths = batch.lengths.begin();
  const auto first = std::accumulate(lengths, lengths + begin, int64_t{0});
  const auto behind = std::accumulate(lengths + begin, lengths + end, first);
  DocumentBatch part;
  part.tokens.assign(batch.tokens.begin() + first, batch.tokens.begin() + behind);
  part.lengths.assign(lengths + begin, lengths + end);
  for (size_t i = 0; i < batch.target_rows.size(); ++i) {
    if (batch.target_rows[i] < first || batch.target_rows[i] >= behind) continue;
    part.target_rows.push_back(batch.target_rows[i] - first);
    part.target_ids.push_back(batch.target_ids[i]);
  }
  return part;
}

}  // namespace

ModelTrainer::ModelTrainer(DecoderSpec spec, ModelTrainerOptions options, at::ScalarType weights)
    : spec_(std::move(spec)),
      options_(std::move(options)),
      parameters_(parameter_specs(spec_), weights),
      optimizer_(parameters_, options_.optimizer) {
  for (const int64_t layer : options_.exit_layers)
    if (layer < 0 || layer >= static_cast<int64_t>(spec_.layers.size()))
      option_invalid("earlyExit.layers", "there is no block " + std::to_string(layer));
}

void ModelTrainer::init(uint64_t seed, double range) {
  const at::NoGradGuard no_grad;
  auto random = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (const auto& spec : parameters_.specs()) {
    const at::Tensor value = parameters_.part(parameters_.values(), spec.name);
    if (spec.decay) {
      value.normal_(0, range, random);
    } else {
      value.fill_(spec.name.ends_with(".bias") ? 0 : 1 - spec_.norm_offset);
    }
  }
}

DecoderWeights ModelTrainer::weights(const Leaves& leaves) const {
  // A copy in the compute dtype is part of the graph: its gradient arrives at the float32 weight.
  std::unordered_map<std::string, at::Tensor> tensors;
  const bool same =
      options_.compute == parameters_.values().scalar_type() || parameters_.values().scalar_type() == at::kDouble;
  for (const auto& [name, leaf] : leaves.by_name) tensors.emplace(name, same ? leaf : leaf.to(options_.compute));
  return take_weights(spec_, std::move(tensors));
}

double ModelTrainer::share(const DocumentBatch& batch, const Leaves& leaves, double targets,
                           const CancelFlag& cancel) const {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  std::vector<SequenceRows> sequences;
  std::vector<uint32_t> positions;
  int64_t first = 0;
  for (const int64_t length : batch.lengths) {
    SequenceRows sequence;
    sequence.queries.resize(static_cast<size_t>(length));
    std::iota(sequence.queries.begin(), sequence.queries.end(), first);
    sequence.keys = sequence.queries;
    sequence.positions.resize(static_cast<size_t>(length));
    std::iota(sequence.positions.begin(), sequence.positions.end(), 0);
    positions.insert(positions.end(), sequence.positions.begin(), sequence.positions.end());
    first += length;
    sequences.push_back(std::move(sequence));
  }
  const RaggedAttention attention(std::move(sequences), rows);
  const DecoderWeights weights = this->weights(leaves);
  const auto dtype = weights.embedding.scalar_type();
  std::vector<Angles> turns;
  for (size_t rope = 0; rope < spec_.ropes.size(); ++rope) turns.push_back(angles(spec_, rope, positions, dtype));

  const at::Tensor target_rows = at::tensor(batch.target_rows, at::kLong);
  const at::Tensor target_ids = at::tensor(batch.target_ids, at::kLong);
  const auto scored = [&](const at::Tensor& x) {
    return next_token_loss(spec_, weights, at::index_select(x, 0, target_rows), target_ids) / targets;
  };
  at::Tensor x = embed(spec_, weights, batch.tokens), exits;
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    check(cancel);
    const Stretch layer = [&, i](const std::vector<at::Tensor>& in) {
      at::Tensor keys, values;
      const auto keep = [&](const at::Tensor& key, const at::Tensor& value) { keys = key, values = value; };
      const auto attend = [&](const at::Tensor& query) { return attention(spec_, i, query, keys, values); };
      const Angles& turn = turns[static_cast<size_t>(spec_.layers[i].rope)];
      return std::vector<at::Tensor>{block(spec_, weights.layers[i], in[0], turn, {}, keep, attend)};
    };
    x = options_.recompute ? recompute(layer, {x})[0] : layer({x})[0];
    if (std::count(options_.exit_layers.begin(), options_.exit_layers.end(), static_cast<int64_t>(i)) > 0) {
      const at::Tensor loss = scored(x);
      exits = exits.defined() ? exits + loss : loss;
    }
  }
  at::Tensor loss = scored(x);
  if (exits.defined()) loss = loss + exits * (options_.exit_weight / static_cast<double>(options_.exit_layers.size()));
  check(cancel);
  if (loss.requires_grad()) loss.backward();
  return loss.item<double>();
}

double ModelTrainer::accumulate(const DocumentBatch& batch, const CancelFlag& cancel) {
  check_batch(batch);
  const auto targets = static_cast<double>(batch.target_ids.size());
  return shares_.accumulate(parameters_, batch.lengths, [&](const Leaves& leaves, int64_t, int64_t begin, int64_t end) {
    const DocumentBatch part = part_of(batch, begin, end);
    return part.target_ids.empty() ? 0.0 : share(part, leaves, targets, cancel);
  });
}

double ModelTrainer::update(double learning_rate) {
  const double norm = parameters_.clip(options_.clip_norm);
  optimizer_.step(parameters_, learning_rate);
  parameters_.zero_gradients();
  return norm;
}

}  // namespace c2c
