#include "train/state.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace c2c {

namespace {

using Tensors = std::unordered_map<std::string, at::Tensor>;

void fill(const Parameters& parameters, const at::Tensor& flat, const Tensors& tensors, const std::string& prefix) {
  const at::NoGradGuard no_grad;
  for (const auto& spec : parameters.specs()) {
    const std::string name = prefix + spec.name;
    const auto found = tensors.find(name);
    if (found == tensors.end()) shape_mismatch(name, spec.shape, {});
    if (found->second.sizes() != at::IntArrayRef(spec.shape))
      shape_mismatch(name, spec.shape, found->second.sizes().vec());
    parameters.part(flat, spec.name).copy_(found->second);
  }
}

void check_count(const Parameters& parameters, const Tensors& tensors, const std::vector<std::string>& prefixes) {
  if (tensors.size() == prefixes.size() * parameters.specs().size()) return;
  for (const auto& [name, tensor] : tensors) {
    bool known = false;
    for (const auto& prefix : prefixes)
      known = known || (name.starts_with(prefix) && parameters.leaves().contains(name.substr(prefix.size())));
    if (!known) shape_mismatch(name, {}, tensor.sizes().vec());
  }
}

}  // namespace

void load_weights(Parameters& parameters, const Tensors& tensors) {
  check_count(parameters, tensors, {""});
  fill(parameters, parameters.values(), tensors, "");
}

void restore_state(Parameters& parameters, AdamW& optimizer, int64_t steps, const Tensors& tensors) {
  check_count(parameters, tensors, {"value/", "first/", "second/"});
  fill(parameters, parameters.values(), tensors, "value/");
  fill(parameters, optimizer.first, tensors, "first/");
  fill(parameters, optimizer.second, tensors, "second/");
  optimizer.steps = steps;
}

at::Tensor state_tensor(const Parameters& parameters, const AdamW& optimizer, const std::string& part,
                        const std::string& name) {
  if (part == "value") return parameters.part(parameters.values(), name);
  if (part == "gradient") return parameters.part(parameters.gradients(), name);
  if (part == "first") return parameters.part(optimizer.first, name);
  if (part == "second") return parameters.part(optimizer.second, name);
  option_invalid("part", "neither value, gradient, first nor second");
}

}  // namespace c2c
