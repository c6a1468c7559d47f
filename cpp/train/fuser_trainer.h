// Trains a fuser between two frozen models: next-token loss of the receiver's response; gradients run through the
// receiver's attention into the fused rows, and from there into the fuser alone.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "fuser/fuser.h"
#include "model/decoder.h"
#include "train/adamw.h"
#include "train/parameters.h"
#include "train/shares.h"
#include "train/waves.h"

namespace c2c {

struct TrainedProjector {
  std::string kind, prefix;  // weights are called prefix + their key in the projector's state dictionary
  int64_t receiver_layer = 0, sharer_layer = 0;
  Options options;
};

struct FuserTrainerOptions {
  AdamWOptions optimizer;
  at::ScalarType compute = at::kFloat;  // of the projectors; their weights and moments stay float32
  double clip_norm = 0;                 // 0: off
  bool gumbel = true;                   // soft gates with noise; without it gates are hard and stay as they are
  bool recompute = false;               // keep only each layer's input for the backward pass
};

// What one call of accumulate() draws and how it counts.
struct TrainingDraw {
  uint64_t seed = 0;  // every random number of the call comes from it
  double temperature = 1;
  double scale = 1;               // of the loss in the gradients, e.g. 1 / micro-batches
  std::vector<at::Tensor> noise;  // given uniform draws [rows, heads]: key, value of each projector, wave after wave
};

class FuserTrainer {
 public:
  // Weights are zero until init() or a restored state. SHAPE_MISMATCH where a projector does not fit the models.
  FuserTrainer(std::shared_ptr<const Decoder> receiver, std::shared_ptr<const Decoder> sharer,
               std::vector<TrainedProjector> projectors, FuserTrainerOptions options,
               at::ScalarType weights = at::kFloat);

  // PyTorch's own first weights of linear maps, norms of one, gate logits of zero.
  void init(uint64_t seed);
  // Adds the gradients of the batch's loss (the mean over its targets), times draw.scale; returns the loss. Samples are
  // dealt out to threads (see Shares), each with draws of its own, where draws are not given.
  double accumulate(const FuserBatch& batch, const TrainingDraw& draw, const CancelFlag& cancel);
  // The loss in inference: hard gates, no dropout, no gradients.
  double evaluate(const FuserBatch& batch, const CancelFlag& cancel) const;
  // Clips, takes one step, clears the gradients; returns the gradients' norm before clipping.
  double update(double learning_rate);
  // A copy for inference.
  std::shared_ptr<Fuser> fuser(at::ScalarType dtype) const;
  // Gate logits by projector.
  std::vector<std::pair<std::optional<double>, std::optional<double>>> gates() const;

  const Decoder& receiver() const { return *receiver_; }
  const Decoder& sharer() const { return *sharer_; }
  const std::vector<TrainedProjector>& projectors() const { return projectors_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  AdamW& optimizer() { return optimizer_; }

 private:
  // The sum over the batch's targets.
  at::Tensor loss(const FuserBatch& batch, const Leaves& leaves, const TrainingDraw* draw,
                  const CancelFlag& cancel) const;
  Projected project(const TrainedProjector& projector, const Leaves& leaves, const Rows& from, const Rows& onto,
                    const Noise* noise, double temperature, const std::vector<int64_t>& runs,
                    std::optional<uint64_t> seed) const;

  std::shared_ptr<const Decoder> receiver_, sharer_;
  std::vector<TrainedProjector> projectors_;
  FuserTrainerOptions options_;
  Parameters parameters_;
  AdamW optimizer_;
  Shares shares_;
};

}  // namespace c2c
