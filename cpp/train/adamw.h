// AdamW (Loshchilov and Hutter, 2019: arXiv 1711.05101), its moments in float32.
#pragma once
#include "train/parameters.h"

namespace c2c {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
};

class AdamW {
 public:
  AdamW(const Parameters& parameters, AdamWOptions options);
  // One update of every trained parameter by its gradient.
  void step(Parameters& parameters, double learning_rate);

  // The state, for checkpoints: mean and uncentred variance of the gradients, and how many steps were taken.
  at::Tensor first, second;
  int64_t steps = 0;

 private:
  AdamWOptions options_;
};

}  // namespace c2c
