// How a model turns keys: what is needed to move cached keys to other positions.
#pragma once
#include <cstdint>
#include <vector>

namespace c2c {

struct Ropes {
  std::vector<std::vector<double>> inverse_frequencies;  // radians per position, headDim / 2 each
  std::vector<int64_t> of_layer;                         // index into them, for each layer
};

}  // namespace c2c
