#include "train/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

namespace c2c {

namespace {
// Values that one pass of the update handles at once, so that its temporaries stay in the cache.
constexpr int64_t kChunk = 1 << 17;
}  // namespace

AdamW::AdamW(const Parameters& parameters, AdamWOptions options)
    : first(at::zeros_like(parameters.values())), second(at::zeros_like(parameters.values())), options_(options) {}

void AdamW::step(Parameters& parameters, double learning_rate) {
  const at::NoGradGuard no_grad;
  ++steps;
  const auto& [beta1, beta2, eps, weight_decay] = options_;
  const double correction1 = 1 - std::pow(beta1, static_cast<double>(steps));
  const double correction2 = 1 - std::pow(beta2, static_cast<double>(steps));
  for (int64_t begin = 0; begin < parameters.trained(); begin += kChunk) {
    const int64_t size = std::min(kChunk, parameters.trained() - begin);
    const auto chunk = [&](const at::Tensor& flat) { return flat.narrow(0, begin, size); };
    const at::Tensor value = chunk(parameters.values()), gradient = chunk(parameters.gradients());
    const at::Tensor mean = chunk(first), variance = chunk(second);
    if (weight_decay != 0 && begin < parameters.decayed())
      value.narrow(0, 0, std::min(size, parameters.decayed() - begin)).mul_(1 - learning_rate * weight_decay);
    mean.lerp_(gradient, 1 - beta1);
    variance.mul_(beta2).addcmul_(gradient, gradient, 1 - beta2);
    const at::Tensor scale = variance.sqrt().div_(std::sqrt(correction2)).add_(eps);
    value.addcdiv_(mean, scale, -learning_rate / correction1);
  }
}

}  // namespace c2c
