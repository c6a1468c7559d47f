#include "train/parameters.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "core/error.h"

namespace c2c {

namespace {

// Leaves begin on cache lines.
constexpr int64_t kAlign = 16;

int64_t count(const std::vector<int64_t>& shape) {
  int64_t total = 1;
  for (const int64_t size : shape) total *= size;
  return total;
}

}  // namespace

Parameters::Parameters(std::vector<ParameterSpec> specs, at::ScalarType dtype) : specs_(std::move(specs)) {
  int64_t offset = 0;
  const auto lay = [&](bool trained, bool decay) {
    for (const auto& spec : specs_) {
      if (spec.trained != trained || (trained && spec.decay != decay)) continue;
      if (!places_.emplace(spec.name, Place{offset, spec.shape}).second)
        option_invalid("parameters", spec.name + " appears twice");
      offset += (count(spec.shape) + kAlign - 1) / kAlign * kAlign;
    }
  };
  lay(true, true);
  decayed_ = offset;
  lay(true, false);
  trained_ = offset;
  lay(false, false);
  values_ = at::zeros({offset}, dtype);
  own_ = twin();
}

Leaves Parameters::twin() const {
  Leaves twin{{}, at::zeros_like(values_)};
  for (const auto& [name, place] : places_) {
    at::Tensor leaf = part(values_, name).detach();
    leaf.set_requires_grad(true);
    // Autograd adds to a gradient that is there already, in place.
    leaf.mutable_grad() = part(twin.gradients, name);
    twin.by_name.emplace(name, leaf);
  }
  return twin;
}

const at::Tensor& Parameters::leaf(const std::string& name) const {
  const auto found = own_.by_name.find(name);
  if (found == own_.by_name.end()) shape_mismatch(name, {}, {});
  return found->second;
}

at::Tensor Parameters::part(const at::Tensor& flat, const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) shape_mismatch(name, {}, {});
  const auto& [offset, shape] = found->second;
  return flat.narrow(0, offset, count(shape)).view(shape);
}

void Parameters::zero_gradients() { own_.gradients.zero_(); }

double Parameters::clip(double limit) {
  const at::NoGradGuard no_grad;
  const at::Tensor own = own_.gradients.narrow(0, 0, trained_);
  const double norm = at::linalg_vector_norm(own).item<double>();
  // As PyTorch's clip_grad_norm_ does.
  const double scale = limit / (norm + 1e-6);
  if (limit > 0 && scale < 1) own.mul_(scale);
  return norm;
}

}  // namespace c2c
