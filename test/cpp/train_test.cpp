// Training without JavaScript: gradients of decoders and fusers against finite differences in float64. Prints
// "N passed, N failed".
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>

#include "check.h"
#include "model/blocks.h"
#include "train/adamw.h"
#include "train/fuser_trainer.h"
#include "train/loss.h"
#include "train/model_trainer.h"
#include "train/ragged.h"
#include "train/random.h"
#include "train/recompute.h"
#include "train/state.h"
#include "trained_decoder.h"

using namespace c2c;

namespace {

// The largest relative difference between gradients and central differences, over a few weights of every parameter.
double gradient_error(Parameters& parameters, const std::function<double()>& loss) {
  parameters.zero_gradients();
  loss();
  const at::Tensor gradients = parameters.gradients().clone();
  const at::NoGradGuard no_grad;
  double worst = 0;
  const double step = 1e-5;
  size_t seen = 0;
  for (const auto& spec : parameters.specs()) {
    const at::Tensor value = parameters.part(parameters.values(), spec.name).flatten();
    const at::Tensor gradient = parameters.part(gradients, spec.name).flatten();
    for (int64_t i = 0; i < value.numel(); i += std::max<int64_t>(1, value.numel() * 2 / 3)) {
      double* cell = parameters.part(parameters.values(), spec.name).flatten().mutable_data_ptr<double>() + i;
      const double old = *cell;
      *cell = old + step;
      const double above = loss();
      *cell = old - step;
      const double below = loss();
      *cell = old;
      const double expected = (above - below) / (2 * step), actual = gradient[i].item<double>();
      const double error = std::abs(expected - actual) / std::max(1e-3, std::abs(expected) + std::abs(actual));
      if (error > 1e-4) std::printf("  %s[%ld]: %g, expected %g\n", spec.name.c_str(), long(i), actual, expected);
      worst = worse(worst, error);
      seen += actual != 0;
    }
  }
  return seen > 0 ? worst : 1;
}

// Whether one, two and three threads give the same loss and gradients, and the number of threads stays what it was.
bool same_on_threads(const Parameters& parameters, const std::function<double()>& accumulate) {
  bool good = true;
  std::vector<at::Tensor> gradients;
  std::vector<double> losses;
  for (const int threads : {1, 2, 3, 2}) {
    at::set_num_threads(threads);
    parameters.gradients().zero_();
    losses.push_back(accumulate());
    gradients.push_back(parameters.gradients().clone());
    good = good && at::get_num_threads() == threads && std::abs(losses.back() - losses[0]) < 1e-12 &&
           at::allclose(gradients.back(), gradients[0], 1e-9, 1e-12);
  }
  at::set_num_threads(1);
  // Bit for bit on the same number.
  return good && at::equal(gradients[1], gradients[3]) && losses[1] == losses[3] &&
         gradients[0].abs().sum().item<double>() > 0;
}

// ── a decoder ────────────────────────────────────────────────────────────────────────────────────────────────────────

const DocumentBatch documents{
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {5, 2, 4}, {0, 1, 3, 4, 6, 9, 10}, {2, 3, 5, 1, 8, 11, 12}};

void decoders() {
  for (const bool gemma : {false, true}) {
    for (const bool again : {false, true}) {
      run(std::string("gradients of a decoder") + (gemma ? " with all of Gemma's parts" : "") +
              (again ? ", recomputed" : ""),
          [&] {
            ModelTrainerOptions options;
            options.compute = at::kDouble;
            options.recompute = again;
            options.exit_layers = {0, 1};
            options.exit_weight = 0.7;
            ModelTrainer trainer(small_spec(gemma), options, at::kDouble);
            trainer.init(5, 0.5);
            return gradient_error(trainer.parameters(), [&] { return trainer.accumulate(documents, nullptr); }) < 1e-4;
          });
    }
  }
  run("a batch's loss is the mean over its documents' targets", [] {
    ModelTrainerOptions options;
    options.compute = at::kDouble;
    ModelTrainer trainer(small_spec(true), options, at::kDouble);
    trainer.init(6, 0.5);
    const double first = trainer.accumulate({{1, 2, 3, 4, 5}, {5}, {0, 1, 3, 4}, {2, 3, 5, 1}}, nullptr);
    const double rest = trainer.accumulate({{6, 7, 8, 9, 10, 11}, {2, 4}, {1, 4, 5}, {8, 11, 12}}, nullptr);
    return std::abs(trainer.accumulate(documents, nullptr) - (4 * first + 3 * rest) / 7) < 1e-12;
  });
  run("documents dealt out to threads give the whole batch's gradients", [] {
    ModelTrainerOptions options;
    options.compute = at::kDouble;
    ModelTrainer trainer(small_spec(true), options, at::kDouble);
    trainer.init(6, 0.5);
    return same_on_threads(trainer.parameters(), [&] { return trainer.accumulate(documents, nullptr); });
  });
  run("a cancelled step throws", [] {
    ModelTrainer trainer(small_spec(false), {});
    try {
      trainer.accumulate(documents, std::make_shared<std::atomic<bool>>(true));
    } catch (const Cancelled&) {
      return true;
    }
    return false;
  });
  run("batches that do not add up are refused", [] {
    ModelTrainer trainer(small_spec(false), {});
    return throws("OPTION_INVALID",
                  [&] {
                    trainer.accumulate({{1, 2}, {3}, {0}, {1}}, nullptr);
                  }) &&
           throws("OPTION_INVALID", [&] {
             trainer.accumulate({{1, 2}, {2}, {}, {}}, nullptr);
           });
  });
}

// ── a fuser ──────────────────────────────────────────────────────────────────────────────────────────────────────────

DecoderSpec sharer_spec() {
  DecoderSpec spec = small_spec(false);
  spec.kv_heads = 1;
  spec.heads = 2;
  spec.head_dim = 6;
  spec.ropes = {{1.0, 0.3, 0.1}};
  spec.qk_norm = false;
  return spec;
}

// Two samples: three sections with two fused runs, and two with one; positions jump in the first.
FuserBatch conversations(bool response) {
  FuserBatch batch;
  batch.receiver = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 3}, {0, 1, 2, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4}, {9, 5}};
  batch.sharer = {{5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6}, {0, 1, 2, 4, 5, 6, 0, 1, 2, 3, 4}, {6, 5}};
  batch.section_counts = {3, 2};
  batch.section_ends = {3, 6, 9, 3, 5};
  batch.fused = {{0, 1, 3, 1}, {0, 4, 6, 4}, {1, 0, 3, 0}};
  if (response) batch.fused.push_back({1, 3, 5, 3});
  batch.target_rows = {7, 8, 12, 13};
  batch.target_ids = {2, 7, 5, 4};
  return batch;
}

TrainedProjector projector(const std::string& kind, int64_t receiver, int64_t sharer, Options options) {
  options.emplace("hidden_dim", 5.0);
  if (kind != "AllInOneProjector") options.emplace("intermediate_dim", 4.0);
  return {kind, "projector_" + std::to_string(receiver) + ".", receiver, sharer, std::move(options)};
}

void fusers() {
  struct Case {
    std::string name, kind;
    Options options;
    bool gumbel = true, recompute = false, response = false;
  };
  const Options token{{"gate_granularity", "head_merged"}, {"gate_depends_on_input", true},
                      {"weight_granularity", "head"},      {"weight_depends_on_input", true},
                      {"weight_hidden_dim", 4.0},          {"scalar_temperature", 1.0}};
  const Options pooled{{"gate_granularity", "scalar"},
                       {"gate_depends_on_input", true},
                       {"scalar_temperature", 1.0},
                       {"use_concat", true},
                       {"use_swiglu", true}};
  std::vector<Case> cases{
      {"gated towers", "C2CProjector", {{"dropout", 0.0}}},
      {"gated towers with dropout", "C2CProjector", {{"dropout", 0.4}}},
      {"gated towers, recomputed", "C2CProjector", {{"dropout", 0.4}}, true, true},
      {"gated towers, response too", "C2CProjector", {{"dropout", 0.0}}, true, false, true},
      {"gated towers, response too, recomputed", "C2CProjector", {{"dropout", 0.0}}, true, true, true},
      {"hard gates", "C2CProjector", {{"dropout", 0.0}}, false},
      {"all in one", "AllInOneProjector", {{"scalar_temperature", 1.0}}},
      {"all in one, gates from input", "AllInOneProjector", token},
      {"all in one, pooled", "AllInOneProjector", pooled, true, true},
  };
  for (int level = 1; level <= 4; ++level)
    cases.push_back({"ablation " + std::to_string(level), "AblationProjector", {{"ablation_level", double(level)}}});
  const auto receiver = random_decoder(small_spec(true), 1), sharer = random_decoder(sharer_spec(), 2);
  for (const Case& c : cases) {
    run("gradients of a fuser: " + c.name, [&] {
      FuserTrainerOptions options;
      options.compute = at::kDouble;
      options.gumbel = c.gumbel;
      options.recompute = c.recompute;
      FuserTrainer trainer(receiver, sharer, {projector(c.kind, 0, 2, c.options), projector(c.kind, 2, 1, c.options)},
                           options, at::kDouble);
      trainer.init(3);
      if (!c.gumbel) {
        // Not at 0, where a hard gate jumps.
        const auto set = [&](const char* name, double logit) {
          trainer.parameters().part(trainer.parameters().values(), name).fill_(logit);
        };
        set("projector_0.key_gate_logit", 1);
        set("projector_0.value_gate_logit", -1);
        set("projector_2.key_gate_logit", -1);
        set("projector_2.value_gate_logit", 1);
      }
      const FuserBatch batch = conversations(c.response);
      TrainingDraw draw;
      draw.seed = 11;
      draw.temperature = 0.8;
      return gradient_error(trainer.parameters(), [&] { return trainer.accumulate(batch, draw, nullptr); }) < 1e-4;
    });
  }
  run("a batch's loss is the mean over its samples' targets", [&] {
    FuserTrainerOptions options;
    options.compute = at::kDouble;
    FuserTrainer trainer(receiver, sharer, {projector("AblationProjector", 1, 1, {{"ablation_level", 2.0}})}, options,
                         at::kDouble);
    trainer.init(4);
    FuserBatch both = conversations(true), one = both, two = both;
    one.receiver = {{1, 2, 3, 4, 5, 6, 7, 8, 9}, {0, 1, 2, 4, 5, 6, 7, 8, 9}, {9}};
    one.sharer = {{5, 6, 7, 8, 9, 1}, {0, 1, 2, 4, 5, 6}, {6}};
    one.section_counts = {3};
    one.section_ends = {3, 6, 9};
    one.fused.resize(2);
    one.target_rows = {7, 8};
    one.target_ids = {2, 7};
    two.receiver = {{10, 11, 12, 1, 3}, {0, 1, 2, 3, 4}, {5}};
    two.sharer = {{2, 3, 4, 5, 6}, {0, 1, 2, 3, 4}, {5}};
    two.section_counts = {2};
    two.section_ends = {3, 5};
    two.fused = {{0, 0, 3, 0}, {0, 3, 5, 3}};
    two.target_rows = {3, 4};
    two.target_ids = {5, 4};
    const double apart = (trainer.evaluate(one, nullptr) + trainer.evaluate(two, nullptr)) / 2;
    return std::abs(trainer.evaluate(both, nullptr) - apart) < 1e-12;
  });
  run("samples dealt out to threads give the whole batch's gradients", [&] {
    FuserTrainerOptions options;
    options.compute = at::kDouble;
    options.gumbel = false;
    FuserTrainer trainer(receiver, sharer, {projector("C2CProjector", 0, 2, {{"dropout", 0.0}})}, options, at::kDouble);
    trainer.init(4);
    for (const char* name : {"projector_0.key_gate_logit", "projector_0.value_gate_logit"})
      trainer.parameters().part(trainer.parameters().values(), name).fill_(1);
    const FuserBatch batch = conversations(true);
    return same_on_threads(trainer.parameters(), [&] { return trainer.accumulate(batch, {}, nullptr); });
  });
  run("a sample without a target leaves its thread idle", [&] {
    FuserTrainer trainer(receiver, sharer, {projector("C2CProjector", 0, 2, {{"dropout", 0.0}})}, {});
    trainer.init(4);
    FuserBatch batch = conversations(true);
    batch.target_rows.resize(1);
    batch.target_ids.resize(1);
    at::set_num_threads(2);
    const double loss = trainer.accumulate(batch, {}, nullptr);
    at::set_num_threads(1);
    return std::isfinite(loss) && loss > 0;
  });
  run("models on another device than the CPU are refused", [&] {
    const auto elsewhere = random_decoder(small_spec(false), 1, at::kMeta);
    const auto refused = [&](const auto& first, const auto& second) {
      return throws("UNSUPPORTED", [&] { FuserTrainer(first, second, {projector("C2CProjector", 1, 1, {})}, {}); });
    };
    return refused(elsewhere, sharer) && refused(receiver, elsewhere) && !refused(receiver, sharer);
  });
  run("batches that do not fit are refused", [&] {
    const auto refused = [&](const std::function<void(FuserBatch&)>& change) {
      FuserBatch batch = conversations(false);
      change(batch);
      return throws("OPTION_INVALID", [&] { plan_waves(batch); });
    };
    return refused([](FuserBatch& b) { b.section_ends[1] = 2; }) &&
           refused([](FuserBatch& b) { b.fused[0].end = 4; }) &&
           refused([](FuserBatch& b) { b.fused[0].sharer = 5; }) &&
           refused([](FuserBatch& b) { b.fused[2].sample = 2; }) &&
           refused([](FuserBatch& b) { b.target_rows[0] = 14; }) &&
           refused([](FuserBatch& b) { b.receiver.lengths[0] = 8; }) &&
           throws("OPTION_INVALID", [&] { FuserTrainer(receiver, sharer, {projector("C2CProjector", 3, 1, {})}, {}); });
  });
}

}  // namespace

int main() {
  at::set_num_threads(1);
  decoders();
  fusers();
  return result();
}
