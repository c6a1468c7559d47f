// Products of a few rows: every weight is read once, in 16-byte pieces, a warp for each output. A warp's first weights
// are on their way before it waits for the kernel that computes its rows.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gate.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/machine.cuh"

namespace c2c::cuda {

namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;

// A thread's pieces of a row that is normed while it lies in registers.
constexpr int kPieces = 4;
struct Pieces {
  float4 values[kPieces];
};

__device__ inline Pieces pieces_of(const float* from, int in) {
  Pieces all;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kThreads;
    all.values[i] = at < in / 4 ? reinterpret_cast<const float4*>(from)[at] : float4{0, 0, 0, 0};
  }
  return all;
}

__device__ inline float dot(const float4& a, const float4& b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }

// One short row, normed; its norm's weights were fetched before it was there.
template <class T>
__device__ void norm_row(const RowProduct& p, const Pieces& weights, T* rows, float* sums) {
  const int in = static_cast<int>(p.in);
  const Pieces x = pieces_of(p.x, in);
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) squares += dot(x.values[i], x.values[i]);
  squares = warp_sum(squares);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = squares;
  __syncthreads();
  squares = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) squares += sums[w];
  const float unit = rsqrtf(squares / static_cast<float>(in) + p.eps);
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int at = (static_cast<int>(threadIdx.x) + i * kThreads) * 4;
    if (at >= in) continue;
    const float4 v = x.values[i], w = weights.values[i];
    rows[at] = from_float<T>(v.x * unit * w.x);
    rows[at + 1] = from_float<T>(v.y * unit * w.y);
    rows[at + 2] = from_float<T>(v.z * unit * w.z);
    rows[at + 3] = from_float<T>(v.w * unit * w.w);
  }
  __syncthreads();
}

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
        squares += dot(v, v);
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

// A warp takes R rows of weights at a time, P pieces of each: with kGated one of each of two weights, else of outputs
// that stand together.
template <class T, int B, int P, int R, bool kGated>
__global__ void __launch_bounds__(kThreads) row_product_kernel(RowProduct p, int64_t outputs) {
  __shared__ float sums[B * kWarps];
  T* rows = dynamic_shared<T>();
  constexpr int width = Pack<T>::kCount;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int packs = static_cast<int>(p.in) / width;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kWarps;
  const int64_t groups = kGated ? outputs : (outputs + R - 1) / R;
  int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;

  // Which weight an output is of, and its row there.
  const auto place = [&](int64_t group, int r, int& part) {
    if constexpr (kGated) {
      part = r;
      return group;
    } else {
      int64_t output = min(group * R + r, outputs - 1);
      for (part = 0; part + 1 < p.count && output >= p.outputs[part]; ++part) output -= p.outputs[part];
      return output;
    }
  };
  Pack<T> held[R][P];
  const auto fetch = [&](int64_t group, int first) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      int part;
      const int64_t output = place(group, r, part);
      const T* from = static_cast<const T*>(p.weights[part]) + output * p.in;
#pragma unroll
      for (int i = 0; i < P; ++i) {
        const int pack = first + i * kWarp + lane;
        held[r][i] = pack < packs ? stream_pack(from + static_cast<int64_t>(pack) * width) : Pack<T>{uint4{0, 0, 0, 0}};
      }
    }
  };
  if (n < groups) fetch(n, 0);
  let_next_start();
  if constexpr (B == 1) {
    if (p.input == nullptr && p.in <= kPieces * kThreads * 4) {
      const Pieces weights = pieces_of(p.norm, static_cast<int>(p.in));
      wait_for_previous();
      norm_row<T>(p, weights, rows, sums);
    } else {
      wait_for_previous();
      rows_in<T, B>(p, rows, sums);
    }
  } else {
    wait_for_previous();
    rows_in<T, B>(p, rows, sums);
  }

  while (n < groups) {
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
      } else if (n + warps < groups) {
        fetch(n + warps, 0);
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int b = 0; b < B; ++b) sum[r][b] = warp_sum(sum[r][b]);
    const auto biased = [&](int r, int b) {
      int part;
      const int64_t output = place(n, r, part);
      const void* bias = p.biases[part];
      return sum[r][b] + (bias == nullptr ? 0.0F : to_float(static_cast<const T*>(bias)[output]));
    };
#pragma unroll
    for (int b = 0; b < B; ++b) {
      if (b >= p.rows) continue;
      if constexpr (kGated) {
        if (lane == b)
          static_cast<T*>(p.out)[b * p.out_stride + n] =
              from_float<T>(activate(p.activation, biased(0, b)) * biased(1, b));
      } else {
#pragma unroll
        for (int r = 0; r < R; ++r) {
          if (lane != b * R + r || n * R + r >= outputs) continue;
          float* to = static_cast<float*>(p.out) + b * p.out_stride + n * R + r;
          *to = p.then == Then::kAdd ? *to + biased(r, b) : biased(r, b);
        }
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

template <class T, int B, int P, int R, bool kGated>
void run(const RowProduct& p, cudaStream_t stream) {
  int64_t outputs = p.outputs[0];
  for (int64_t i = 1; i < p.count && !kGated; ++i) outputs += p.outputs[i];
  const size_t shared = static_cast<size_t>(B * p.in) * sizeof(T);
  const auto kernel = row_product_kernel<T, B, P, R, kGated>;
  if (shared > 40 * 1024) {
    checked(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared)),
            "row_product");
  }
  // No more blocks than leave the next kernel's some room.
  const int64_t groups = kGated ? outputs : (outputs + R - 1) / R;
  const int64_t blocks = (groups + kWarps - 1) / kWarps, most = int64_t{multiprocessors()} * 6;
  launch("row_product", kernel, dim3(static_cast<unsigned>(blocks < most ? blocks : most)), dim3(kThreads), shared,
         stream, p.overlap, p, outputs);
}

template <class T, int B, int P>
void either(const RowProduct& p, cudaStream_t stream) {
  if (p.then == Then::kGate) return run<T, B, P, 2, true>(p, stream);
  // Long rows keep a warp's loads busy alone; of short ones it takes two.
  if constexpr (P == 4) return run<T, B, P, 2, false>(p, stream);
  run<T, B, P, 1, false>(p, stream);
}

template <class T>
void choose(const RowProduct& p, cudaStream_t stream) {
  const int64_t each = (p.in / Pack<T>::kCount + kWarp - 1) / kWarp;  // pieces of a row for each lane
  if (p.rows == 1)
    return each <= 4   ? either<T, 1, 4>(p, stream)
           : each <= 8 ? either<T, 1, 8>(p, stream)
                       : either<T, 1, 12>(p, stream);
  if (p.rows == 2) return either<T, 2, 4>(p, stream);
  if (p.rows <= 4) return either<T, 4, 4>(p, stream);
  either<T, 8, 4>(p, stream);
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
