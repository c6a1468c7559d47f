// Trains a decoder on token documents.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "model/weights.h"
#include "train/adamw.h"
#include "train/parameters.h"
#include "train/shares.h"

namespace c2c {

// Rows of all documents, one after another; no padding.
struct DocumentBatch {
  std::vector<uint32_t> tokens;
  std::vector<int64_t> lengths;                  // rows of each document
  std::vector<int64_t> target_rows, target_ids;  // which rows are scored, and the token that follows each
};

struct ModelTrainerOptions {
  AdamWOptions optimizer;
  at::ScalarType compute = at::kFloat;  // of activations and of the weights' copies; weights themselves stay float32
  double clip_norm = 0;                 // 0: off
  std::vector<int64_t> exit_layers;     // blocks whose outputs are scored too, through the final norm and the head
  double exit_weight = 0;               // of their mean loss
  bool recompute = false;               // keep only each block's input for the backward pass
};

class ModelTrainer {
 public:
  // Weights are zero until init() or restore(). `weights` dtype: float32, or float64 for checks of gradients.
  ModelTrainer(DecoderSpec spec, ModelTrainerOptions options, at::ScalarType weights = at::kFloat);

  // Normal weights of deviation `range`, norms of one (of zero where the spec offsets them), biases of zero.
  void init(uint64_t seed, double range);

  // Adds the gradients of the batch's loss and returns it: the mean over target rows, with the early exits' share.
  // Documents are dealt out to threads (see Shares).
  double accumulate(const DocumentBatch& batch, const CancelFlag& cancel);
  // Clips, takes one step, clears the gradients; returns the gradients' norm before clipping.
  double update(double learning_rate);

  const DecoderSpec& spec() const { return spec_; }
  Parameters& parameters() { return parameters_; }
  AdamW& optimizer() { return optimizer_; }

 private:
  DecoderWeights weights(const Leaves& leaves) const;
  // The gradients and the loss of a share of a batch that has so many targets in all.
  double share(const DocumentBatch& batch, const Leaves& leaves, double targets, const CancelFlag& cancel) const;

  DecoderSpec spec_;
  ModelTrainerOptions options_;
  Parameters parameters_;
  AdamW optimizer_;
  Shares shares_;
};

}  // namespace c2c
