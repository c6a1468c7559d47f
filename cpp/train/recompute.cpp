#include "train/recompute.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <type_traits>

namespace c2c {

namespace {

using torch::autograd::variable_list;

// The node that stands for a stretch in autograd's graph.
struct Recomputed final : torch::autograd::Node {
  Stretch stretch;
  std::vector<torch::autograd::SavedVariable> saved;
  std::vector<bool> wanted;  // which inputs need a gradient

  variable_list apply(variable_list&& gradients) override {
    variable_list inputs, roots, seeds, results;
    for (size_t i = 0; i < saved.size(); ++i) {
      const at::Tensor input = saved[i].unpack();
      inputs.push_back(input.defined() ? input.detach().set_requires_grad(wanted[i]) : input);
    }
    {
      const at::AutoGradMode on(true);
      const variable_list outputs = stretch(inputs);
      for (size_t i = 0; i < outputs.size(); ++i) {
        if (!gradients[i].defined() || !outputs[i].requires_grad()) continue;
        roots.push_back(outputs[i]);
        seeds.push_back(gradients[i]);
      }
    }
    if (!roots.empty()) torch::autograd::backward(roots, seeds);
    for (const auto& input : inputs) results.push_back(input.defined() ? input.grad() : input);
    return results;
  }

  void release_variables() override { saved.clear(); }
  std::string name() const override { return "Recomputed"; }
};

// Nodes count their own references in newer libtorch (after 2.11), and are shared pointers in older ones.
template <class T>
auto make_node() {
  if constexpr (std::is_base_of_v<c10::intrusive_ptr_target, T>) {
    return c10::make_intrusive<T>();
  } else {
    return std::make_shared<T>();
  }
}

}  // namespace

std::vector<at::Tensor> recompute(const Stretch& stretch, const std::vector<at::Tensor>& inputs) {
  if (!at::GradMode::is_enabled()) return stretch(inputs);
  variable_list outputs;
  {
    const at::AutoGradMode off(false);
    outputs = stretch(inputs);
  }
  const auto node = make_node<Recomputed>();
  node->stretch = stretch;
  for (const auto& input : inputs) {
    node->wanted.push_back(input.requires_grad());
    node->saved.emplace_back(input, false);
  }
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  for (auto& output : outputs) torch::autograd::set_history(output, node);
  return outputs;
}

}  // namespace c2c
