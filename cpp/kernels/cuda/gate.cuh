// Values that several kernels compute alike: activations, and heads that are normed and turned.
#pragma once
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace c2c::cuda {

__device__ inline float activate(Gate kind, float x) {
  if (kind == Gate::kSilu) return x / (1.0F + __expf(-x));
  if (kind == Gate::kGelu) return 0.5F * x * (1.0F + erff(x * 0.70710678118654752F));
  const float inner = 0.79788456080286536F * (x + 0.044715F * x * x * x);
  return 0.5F * x * (1.0F + tanhf(inner));
}

// One head's values, normed where a norm is given, in `values` [dim]. A whole warp calls it.
template <class T>
__device__ inline void head_in(const T* from, int dim, int lane, const float* norm, float eps, float* values) {
  float squares = 0;
  for (int d = lane; d < dim; d += kWarp) {
    const float v = to_float(from[d]);
    values[d] = v;
    squares += v * v;
  }
  if (norm != nullptr) {
    const float unit = rsqrtf(warp_sum(squares) / static_cast<float>(dim) + eps);
    for (int d = lane; d < dim; d += kWarp) values[d] *= unit * norm[d];
  }
  __syncwarp();
}

// Value `d` of the head turned by its row's cosines and sines.
__device__ inline float turned_value(const float* values, int d, int dim, const float* turns) {
  const int half = dim / 2, pair = d < half ? d : d - half;
  const float cos = turns[pair], sin = turns[half + pair];
  return d < half ? values[d] * cos - values[d + half] * sin : values[d] * cos + values[d - half] * sin;
}

}  // namespace c2c::cuda
