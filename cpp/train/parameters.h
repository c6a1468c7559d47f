// Weights under training: leaves of autograd that lie in one flat buffer, and their gradients in another. Clipping, an
// optimiser step and a checkpoint are then a few passes over flat memory, however many tensors there are.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace c2c {

struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  bool decay = true;    // whether weight decay shrinks it
  bool trained = true;  // false: kept and saved, never changed (its gradient is not counted either)
};

// Leaves of autograd over the weights, by name, and the flat buffer in which their gradients gather.
struct Leaves {
  std::unordered_map<std::string, at::Tensor> by_name;
  at::Tensor gradients;
};

class Parameters {
 public:
  // Zeros, until init() or restore(). `dtype` is float32; float64 for checks of gradients.
  explicit Parameters(std::vector<ParameterSpec> specs, at::ScalarType dtype = at::kFloat);

  const std::vector<ParameterSpec>& specs() const { return specs_; }
  // The leaf of that name. SHAPE_MISMATCH where there is none.
  const at::Tensor& leaf(const std::string& name) const;
  // Every leaf by its name.
  const std::unordered_map<std::string, at::Tensor>& leaves() const { return own_.by_name; }
  const Leaves& own() const { return own_; }
  // Other leaves of the same weights, whose gradients gather in a buffer of their own.
  Leaves twin() const;
  // The part of a flat buffer (values, gradients, an optimiser's moments) that belongs to a parameter.
  at::Tensor part(const at::Tensor& flat, const std::string& name) const;

  // Flat buffers: decayed parameters first, then other trained ones, then the rest.
  const at::Tensor& values() const { return values_; }
  const at::Tensor& gradients() const { return own_.gradients; }
  int64_t decayed() const { return decayed_; }
  int64_t trained() const { return trained_; }

  void zero_gradients();
  // The gradients' L2 norm over all trained parameters; above `limit` (where that is above 0) they are scaled down to
  // it.
  double clip(double limit);

 private:
  struct Place {
    int64_t offset;
    std::vector<int64_t> shape;
  };
  std::vector<ParameterSpec> specs_;
  std::unordered_map<std::string, Place> places_;
  at::Tensor values_;
  Leaves own_;
  int64_t decayed_ = 0, trained_ = 0;
};

}  // namespace c2c
