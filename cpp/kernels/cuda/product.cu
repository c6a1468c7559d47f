// Products of a few rows: every weight is read once, in 16-byte pieces, a warp for each output. A warp's first weights
// are on their way before it waits for the kernel that computes its rows.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gate.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"

namespace c2c::cuda {

namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;

// The rows in shared memory, as products read them.
template <class T, int B>
__device__ void rows_in(const RowProduct& p, T* rows, float* sums) {
  const int in = static_cast<int>(p.in);
  if (p.input != nullptr) {
    const auto* from = static_cast<const uint4*>(p.input);
    auto* to = reinterpret_cast<uint4*>(rows);
    const int packs = static_cast<int>(p.rows) * in / Pack<T>::kCount;
    for (int i = static_cast<int>(threadIdx.x); i < packs; i += kThreads) to[i] = from[i];
    __syncthreads();
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int b = 0; b < B; ++b) {
    float squares = 0;
    if (b < p.rows) {
      for (int i = static_cast<int>(threadIdx.x); i < in / 4; i += kThreads) {
        const float4 v = reinterpret_cast<const float4*>(p.x + b * in)[i];
        squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
      }
    }
    squares = warp_sum(squares);
    if (lane == 0) sums[b * kWarps + warp] = squares;
  }
  __syncthreads();
  for (int b = 0; b < B && b < p.rows; ++b) {
    float squares = 0;
    for (int w = 0; w < kWarps; ++w) squares += sums[b * kWarps + w];
    const float unit = rsqrtf(squares / static_cast<float>(in) + p.eps);
    for (int i = static_cast<int>(threadIdx.x); i < in; i += kThreads)
      rows[b * in + i] = from_float<T>(p.x[b * in + i] * unit * p.norm[i]);
  }
  __syncthreads();
}

// R weights' rows of one output, P pieces of each at a time.
template <class T, int B, int P, int R>
__global__ void __launch_bounds__(kThreads) row_product_kernel(RowProduct p, int64_t outputs) {
  extern __shared__ uint4 shared[];
  __shared__ float sums[B * kWarps];
  T* rows = reinterpret_cast<T*>(shared);
  constexpr int width = Pack<T>::kCount;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int packs = static_cast<int>(p.in) / width;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kWarps;
  int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;

  const auto row_of = [&](int64_t output, int r) {
    int part = r;
    if constexpr (R == 1) {
      while (part + 1 < p.count && output >= p.outputs[part]) output -= p.outputs[part++];
    }
    return static_cast<const T*>(p.weights[part]) + output * p.in;
  };
  Pack<T> held[R][P];
  const auto fetch = [&](int64_t output, int first) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const T* from = row_of(output, r);
#pragma unroll
      for (int i = 0; i < P; ++i) {
        const int pack = first + i * kWarp + lane;
        held[r][i] = pack < packs ? stream_pack(from + static_cast<int64_t>(pack) * width) : Pack<T>{uint4{0, 0, 0, 0}};
      }
    }
  };
  if (n < outputs) fetch(n, 0);
  let_next_start();
  wait_for_previous();
  rows_in<T, B>(p, rows, sums);

  while (n < outputs) {
    float sum[R][B] = {};
    for (int first = 0; first < packs; first += P * kWarp) {
#pragma unroll
      for (int i = 0; i < P; ++i) {
        const int pack = first + i * kWarp + lane;
        if (pack >= packs) continue;
#pragma unroll
        for (int b = 0; b < B; ++b) {
          const Pack<T> x = load_pack(rows + b * p.in + static_cast<int64_t>(pack) * width);
#pragma unroll
          for (int r = 0; r < R; ++r)
#pragma unroll
            for (int j = 0; j < width; ++j) sum[r][b] += held[r][i][j] * x[j];
        }
      }
      if (first + P * kWarp < packs) {
        fetch(n, first + P * kWarp);
      } else if (n + warps < outputs) {
        fetch(n + warps, 0);
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int b = 0; b < B; ++b) sum[r][b] = warp_sum(sum[r][b]);
    int64_t output = n;
    int part = 0;
    if constexpr (R == 1) {
      while (part + 1 < p.count && output >= p.outputs[part]) output -= p.outputs[part++];
    }
    const auto bias = [&](int r) {
      const void* from = p.biases[part + r];
      return from == nullptr ? 0.0F : to_float(static_cast<const T*>(from)[output]);
    };
#pragma unroll
    for (int b = 0; b < B; ++b) {
      if (lane != b || b >= p.rows) continue;
      const int64_t at = b * p.out_stride + n;
      const float first = sum[0][b] + bias(0);
      if constexpr (R == 2) {
        static_cast<T*>(p.out)[at] = from_float<T>(activate(p.activation, first) * (sum[1][b] + bias(1)));
      } else if (p.then == Then::kAdd) {
        static_cast<float*>(p.out)[at] += first;
      } else {
        static_cast<float*>(p.out)[at] = first;
      }
    }
    n += warps;
  }
}

int multiprocessors() {
  int device = 0, count = 0;
  checked(cudaGetDevice(&device), "row_product");
  checked(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "row_product");
  return count;
}

template <class T, int B, int P>
void run(const RowProduct& p, cudaStream_t stream) {
  const bool gate = p.then == Then::kGate;
  int64_t outputs = p.outputs[0];
  for (int64_t i = 1; i < p.count && !gate; ++i) outputs += p.outputs[i];
  const size_t shared = static_cast<size_t>(B * p.in) * sizeof(T);
  const auto kernel = gate ? row_product_kernel<T, B, P, 2> : row_product_kernel<T, B, P, 1>;
  if (shared > 40 * 1024) {
    checked(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared)),
            "row_product");
  }
  const int64_t blocks = (outputs + kWarps - 1) / kWarps, most = int64_t{multiprocessors()} * (B == 1 ? 16 : 8);
  launch("row_product", kernel, dim3(static_cast<unsigned>(blocks < most ? blocks : most)), dim3(kThreads), shared,
         stream, p.overlap, p, outputs);
}

template <class T>
void choose(const RowProduct& p, cudaStream_t stream) {
  const int64_t each = p.in / Pack<T>::kCount / kWarp;  // pieces of a row for each lane
  if (p.rows == 1)
    return each <= 4 ? run<T, 1, 4>(p, stream) : each <= 8 ? run<T, 1, 8>(p, stream) : run<T, 1, 12>(p, stream);
  if (p.rows == 2) return run<T, 2, 4>(p, stream);
  if (p.rows <= 4) return run<T, 4, 4>(p, stream);
  run<T, 8, 4>(p, stream);
}

}  // namespace

bool multiplies(Type type, int64_t rows, int64_t in) {
  const int64_t bytes = type == Type::kBf16 ? 2 : 4, held = rows <= 2 ? rows : rows <= 4 ? 4 : 8;
  return rows <= kMostRows && in % (16 / bytes) == 0 && held * in * bytes <= 96 * 1024;
}

void row_product(const RowProduct& p, cudaStream_t stream) {
  p.type == Type::kBf16 ? choose<__nv_bfloat16>(p, stream) : choose<float>(p, stream);
}

}  // namespace c2c::cuda
