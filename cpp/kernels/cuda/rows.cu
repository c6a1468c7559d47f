// Kernels over rows: norms, gates, rotary positions.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gate.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/machine.cuh"

namespace c2c::cuda {

namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void add_norm_kernel(AddNorm p) {
  __shared__ float scratch[kWarp];
  const int64_t row = p.pick == nullptr ? blockIdx.x : p.pick[blockIdx.x];
  float* x = p.x + row * p.width;
  T* out = static_cast<T*>(p.out) + static_cast<int64_t>(blockIdx.x) * p.width;
  const T* delta = p.delta == nullptr ? nullptr : static_cast<const T*>(p.delta) + row * p.width;
  float squares = 0;
  if (p.delta_norm != nullptr) {
    for (int64_t i = threadIdx.x; i < p.width; i += kThreads) {
      const float d = to_float(delta[i]);
      squares += d * d;
    }
    const float unit = rsqrtf(block_sum(squares, scratch) / static_cast<float>(p.width) + p.eps);
    squares = 0;
    for (int64_t i = threadIdx.x; i < p.width; i += kThreads) {
      const float sum = x[i] + to_float(delta[i]) * unit * p.delta_norm[i];
      x[i] = sum;
      squares += sum * sum;
    }
  } else {
    for (int64_t i = threadIdx.x; i < p.width; i += kThreads) {
      float sum = x[i];
      if (delta != nullptr) x[i] = sum += to_float(delta[i]);
      squares += sum * sum;
    }
  }
  const float unit = rsqrtf(block_sum(squares, scratch) / static_cast<float>(p.width) + p.eps);
  for (int64_t i = threadIdx.x; i < p.width; i += kThreads) out[i] = from_float<T>(x[i] * unit * p.weight[i]);
}

template <class T>
__global__ void gated_kernel(Gated p, int64_t packs) {
  constexpr int width = Pack<T>::kCount;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, row = blockIdx.y;
  const T *gate = static_cast<const T*>(p.gate) + row * p.stride, *up = static_cast<const T*>(p.up) + row * p.stride;
  T* out = static_cast<T*>(p.out) + row * p.width;
  if (i < packs) {
    const Pack<T> g = load_pack(gate + i * width), u = load_pack(up + i * width);
    float made[width];
#pragma unroll
    for (int j = 0; j < width; ++j) made[j] = activate(p.activation, g[j]) * u[j];
    store_pack(out + i * width, made);
  }
  const int64_t rest = packs * width + i;
  if (rest < p.width) out[rest] = from_float<T>(activate(p.activation, to_float(gate[rest])) * to_float(up[rest]));
}

__global__ void angles_kernel(const float* frequencies, const QueryRow* at, int half, float* turns) {
  for (int i = static_cast<int>(threadIdx.x); i < half; i += static_cast<int>(blockDim.x)) {
    float* row = turns + static_cast<int64_t>(blockIdx.x) * 2 * half;
    sincosf(static_cast<float>(at[blockIdx.x].position) * frequencies[i], row + half + i, row + i);
  }
}

template <class T>
__global__ void embed_kernel(const T* table, float scale, const QueryRow* at, int64_t width, float* x) {
  const int64_t row = blockIdx.x;
  const T* from = table + static_cast<int64_t>(at[row].token) * width;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) x[row * width + i] = to_float(from[i]) * scale;
}

// A warp for each head of a row.
template <class T>
__global__ void turn_kernel(Turn p, int64_t tasks, int64_t per_row) {
  const int64_t task = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (task >= tasks) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, dim = static_cast<int>(p.dim);
  float* values = dynamic_shared<float>() + threadIdx.x / kWarp * dim;
  const int64_t row = task / per_row;
  int64_t head = task % per_row;
  const QueryRow& at = p.at[row];
  const T* from;
  T* to;
  const float* norm = nullptr;
  bool turned = true;
  const int64_t queries = p.query == nullptr ? 0 : p.heads;
  if (head < queries) {
    from = to = static_cast<T*>(p.query) + row * p.query_stride + head * dim;
    norm = p.query_norm;
  } else {
    if (at.place == nullptr) return;
    head -= queries;
    const bool value = head >= p.kv_heads;
    if (value) head -= p.kv_heads;
    turned = !value;
    norm = value ? nullptr : p.key_norm;
    from = static_cast<const T*>(value ? p.value : p.key) + row * p.kv_stride + head * dim;
    to = reinterpret_cast<T*>(at.place + p.layer * at.layer_bytes + (value ? at.part_bytes : 0)) + head * dim;
  }
  if (!turned) {
    for (int d = lane; d < dim; d += kWarp) to[d] = from[d];
    return;
  }
  const float* turns = p.turns + row * dim;
  head_in<T>(from, dim, lane, norm, p.eps, values);
  for (int d = lane; d < dim; d += kWarp) to[d] = from_float<T>(turned_value(values, d, dim, turns));
}

}  // namespace

void add_norm(const AddNorm& p, cudaStream_t stream) {
  if (p.rows == 0) return;
  launch("add_norm", p.type == Type::kBf16 ? add_norm_kernel<__nv_bfloat16> : add_norm_kernel<float>,
         dim3(static_cast<unsigned>(p.rows)), dim3(kThreads), 0, stream, false, p);
}

void gated(const Gated& p, cudaStream_t stream) {
  if (p.rows == 0 || p.width == 0) return;
  const auto run = [&]<class T>(T*) {
    constexpr int64_t width = Pack<T>::kCount;
    const auto aligned = [](const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; };
    const bool whole =
        aligned(p.gate) && aligned(p.up) && aligned(p.out) && p.stride % width == 0 && p.width % width == 0;
    const int64_t packs = whole ? p.width / width : 0, threads = whole ? packs : p.width;
    launch("gated", gated_kernel<T>,
           dim3(static_cast<unsigned>((threads + kThreads - 1) / kThreads), static_cast<unsigned>(p.rows)),
           dim3(kThreads), 0, stream, false, p, packs);
  };
  p.type == Type::kBf16 ? run(static_cast<__nv_bfloat16*>(nullptr)) : run(static_cast<float*>(nullptr));
}

void angles(const float* frequencies, const QueryRow* at, int64_t rows, int64_t dim, float* turns,
            cudaStream_t stream) {
  launch("angles", angles_kernel, dim3(static_cast<unsigned>(rows)), dim3(kWarp), 0, stream, false, frequencies, at,
         static_cast<int>(dim / 2), turns);
}

void embed(Type table_type, const void* table, float scale, const QueryRow* at, int64_t rows, int64_t width, float* x,
           cudaStream_t stream) {
  const auto run = [&]<class T>(const T* typed) {
    launch("embed", embed_kernel<T>, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream, false, typed, scale,
           at, width, x);
  };
  table_type == Type::kBf16 ? run(static_cast<const __nv_bfloat16*>(table)) : run(static_cast<const float*>(table));
}

void turn(const Turn& p, cudaStream_t stream) {
  const int64_t per_row = (p.query == nullptr ? 0 : p.heads) + (p.key == nullptr ? 0 : 2 * p.kv_heads);
  const int64_t tasks = p.rows * per_row, warps = kThreads / kWarp;
  if (tasks == 0) return;
  launch("turn", p.type == Type::kBf16 ? turn_kernel<__nv_bfloat16> : turn_kernel<float>,
         dim3(static_cast<unsigned>((tasks + warps - 1) / warps)), dim3(kThreads),
         static_cast<size_t>(warps * p.dim) * sizeof(float), stream, false, p, tasks, per_row);
}

}  // namespace c2c::cuda
