// The multi-layer perceptron of the all-in-one kind.
#pragma once
#include <string>
#include <vector>

#include "fuser/parts.h"

namespace c2c {

struct MlpShape {
  int64_t in, hidden, out, layers;
  std::string activation = "gelu";  // gelu (exact), relu or silu
  bool norm = true;                 // layer norm after every layer but the last
  bool residual = false;            // adds the input where it is as wide as the output
  bool swiglu = false;              // silu(gate) * up instead of linear and activation
  double dropout = 0.1;             // in training; above 0 it takes a place in the numbering of layers
};

// Layers `<name>.layers.<i>`; norms, activations and dropouts count in the numbering.
class Mlp {
 public:
  Mlp() = default;
  // `random`: the stream of dropout, in training; null: none.
  Mlp(WeightReader& weights, const std::string& name, const MlpShape& shape, std::shared_ptr<at::Generator> random);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  struct Layer {
    Affine map, gate;  // gate only in SwiGLU layers
    at::Tensor norm_weight, norm_bias;
  };
  at::Tensor activate(const at::Tensor& x) const;

  std::string activation_;
  bool residual_ = false;
  double dropout_ = 0;
  std::shared_ptr<at::Generator> random_;
  std::vector<Layer> layers_;
};

}  // namespace c2c
