#include "kernels/cuda/tower.h"

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/machine.cuh"

namespace c2c::cuda {

namespace {

constexpr float kEpsilon = 1e-6F;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// kCols neighbouring values: 16 bytes or more, aligned, or one alone.
template <int kCols>
__device__ inline void load(const float* at, float* out) {
  if constexpr (kCols == 1) {
    out[0] = *at;
  } else {
#pragma unroll
    for (int i = 0; i < kCols; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(at + i);
      out[i] = four.x, out[i + 1] = four.y, out[i + 2] = four.z, out[i + 3] = four.w;
    }
  }
}
template <int kCols>
__device__ inline void load(const __nv_bfloat16* at, float* out) {
  if constexpr (kCols == 1) {
    out[0] = to_float(*at);
  } else {
    const Pack<__nv_bfloat16> pack = load_pack(at);
#pragma unroll
    for (int i = 0; i < kCols; ++i) out[i] = pack[i];
  }
}
template <int kCols, class T>
__device__ inline void store(T* at, const float* values) {
  if constexpr (kCols == 1) {
    *at = from_float<T>(values[0]);
  } else {
#pragma unroll
    for (int i = 0; i < kCols; i += Pack<T>::kCount) store_pack(at + i, values + i);
  }
}

// x · Φ(x). For float as the library's erf has it.
template <class T>
__device__ inline float gelu(float x) {
  if constexpr (sizeof(T) == 4) {
    return 0.5F * x * (1.0F + erff(x * 0.70710678118654752F));
  } else {
    // max(x, 0) - |x| · Φ(-|x|), with log2 Φ(-t) as a polynomial on [0, 5.5]: within 2.5e-7 of the exact value, and
    // within 4e-4 of it relatively where it is tiny; bfloat16 rounds by 2e-3. One pass through the slow unit, not two.
    const float t = fminf(fabsf(x), 5.5F);
    float p = 3.359713082318194e-05F;
    p = fmaf(p, t, -0.000768794328905642F);
    p = fmaf(p, t, 0.008062602020800114F);
    p = fmaf(p, t, -0.05335557088255882F);
    p = fmaf(p, t, -0.4588382840156555F);
    p = fmaf(p, t, -1.1511690616607666F);
    p = fmaf(p, t, -0.999998152256012F);
    return fmaf(-fabsf(x), exp2_near(p), fmaxf(x, 0.0F));
  }
}

template <class T>
__device__ inline T* row_of(const TowerBatch& x, int64_t tower, int64_t row) {
  return static_cast<T*>(x.at) + tower * x.tower + row * x.row;
}

template <class From, class To, int kCols>
__global__ void __launch_bounds__(kThreads) gather_kernel(const __grid_constant__ TowerRows from, TowerBatch to,
                                                          unsigned groups, unsigned width, int ones, unsigned rows) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x, row = i / groups;
  if (row >= rows) return;
  const unsigned col = i % groups * kCols;
  float values[kCols];
  load<kCols>(static_cast<const From*>(from.at[blockIdx.y]) + row * from.stride + col, values);
  To* out = row_of<To>(to, blockIdx.y, row);
  store<kCols>(out + col, values);
  if (col + kCols < width) return;
  for (int j = 0; j < ones; ++j) out[width + j] = from_float<To>(j == 0 ? 1.0F : 0.0F);
}

// A warp for each row.
template <class T, int kCols>
__global__ void __launch_bounds__(kThreads) norm_gelu_kernel(TowerBatch x, int hidden, int inner, int rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  T* values = row_of<T>(x, blockIdx.y, row);
  float sum = 0.0F;
#pragma unroll 4
  for (int col = lane * kCols; col < hidden; col += kWarp * kCols) {
    float h[kCols];
    load<kCols>(values + col, h);
#pragma unroll
    for (int j = 0; j < kCols; ++j) sum = fmaf(h[j], h[j], sum);
  }
  const float scale = rsqrtf(warp_sum(sum) / static_cast<float>(hidden) + kEpsilon);
  T* u = values + hidden;
#pragma unroll 4
  for (int col = lane * kCols; col < inner; col += kWarp * kCols) {
    float v[kCols];
    load<kCols>(u + col, v);
#pragma unroll
    for (int j = 0; j < kCols; ++j) v[j] = gelu<T>(v[j] * scale);
    store<kCols>(u + col, v);
  }
}

// The weights of a row by its warp, of any type and width, after norm_gelu_kernel went over inner and scalar alike.
template <class T>
__global__ void __launch_bounds__(kThreads) weigh_kernel(TowerBatch x, Weigh w, int rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const T* values = row_of<T>(x, blockIdx.y, row);
  const int64_t padded = (w.heads + kHeadGroup - 1) / kHeadGroup * kHeadGroup, in = w.hidden + w.scalar;
  const T* matrix = static_cast<const T*>(w.matrix) + blockIdx.y * padded * in;
  for (int64_t head = 0; head < w.heads; ++head) {
    float sum = 0.0F;
    for (int64_t col = lane; col < w.hidden; col += kWarp)
      sum = fmaf(to_float(values[col]), to_float(matrix[head * in + col]), sum);
    for (int64_t col = lane; col < w.scalar; col += kWarp)
      sum = fmaf(to_float(values[w.hidden + w.inner + col]), to_float(matrix[head * in + w.hidden + col]), sum);
    sum = warp_sum(sum);
    if (lane == 0)
      w.weights[blockIdx.y * w.weights_tower + row * w.heads + head] =
          1.0F / (1.0F + expf(-(sum + w.bias[blockIdx.y * padded + head])));
  }
}

// d += a · b of 16 rows by 8 heads. Lanes hold 8 neighbouring values of two rows and of one head: which of the sum's
// terms a value is does not matter, as long as rows and heads agree.
__device__ inline void multiply(float* d, const uint4& a, const uint4& b, const uint4& heads) {
  multiply_16x8x16(d, a.x, b.x, a.y, b.y, heads.x, heads.y);
  multiply_16x8x16(d, a.z, b.z, a.w, b.w, heads.z, heads.w);
}

__device__ inline uint4 zeros() { return make_uint4(0, 0, 0, 0); }

__device__ inline void add_squares(const uint4& bits, float& sum) {
  const Pack<__nv_bfloat16> pack{bits};
#pragma unroll
  for (int j = 0; j < Pack<__nv_bfloat16>::kCount; ++j) sum = fmaf(pack[j], pack[j], sum);
}

__device__ inline uint4 scaled_gelu(const uint4& bits, float scale) {
  const Pack<__nv_bfloat16> pack{bits};
  alignas(16) __nv_bfloat162 out[4];
#pragma unroll
  for (int j = 0; j < 4; ++j)
    out[j] =
        __floats2bfloat162_rn(gelu<__nv_bfloat16>(pack[2 * j] * scale), gelu<__nv_bfloat16>(pack[2 * j + 1] * scale));
  return *reinterpret_cast<const uint4*>(out);
}

// A block for 16 rows, whose columns its warps share. A lane has rows `lane / 4` and that + 8, and 8 columns of
// each 32.
template <int kGroups>
__global__ void __launch_bounds__(kThreads) norm_gelu_weigh_kernel(TowerBatch x, Weigh w, int rows) {
  using T = __nv_bfloat16;
  constexpr int kRows = 16, kHeads = 8 * kGroups;
  __shared__ float squares[kWarps][kRows];
  __shared__ float sums[kWarps][kRows][kHeads];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first = static_cast<int>(blockIdx.x) * kRows, a = lane / 4, b = a + 8, column = lane % 4 * 8;
  const bool has_a = first + a < rows, has_b = first + b < rows;
  const int hidden = static_cast<int>(w.hidden), inner = static_cast<int>(w.inner), scalar = static_cast<int>(w.scalar);
  // Rows that are not there are read from the last one, and not written.
  T* row_a = row_of<T>(x, blockIdx.y, min(first + a, rows - 1));
  T* row_b = row_of<T>(x, blockIdx.y, min(first + b, rows - 1));
  const T* matrix =
      static_cast<const T*>(w.matrix) + (static_cast<int64_t>(blockIdx.y) * kHeads + a) * (w.hidden + w.scalar);
  const int64_t group = 8 * (w.hidden + w.scalar);
  float d[kGroups][4] = {};
  float square_a = 0.0F, square_b = 0.0F;
#pragma unroll 4
  for (int start = warp * 32; start < hidden; start += kWarps * 32) {
    const int col = start + column;
    const bool in = col < hidden;
    const uint4 va = in ? load_pack(row_a + col).bits : zeros(), vb = in ? load_pack(row_b + col).bits : zeros();
    add_squares(va, square_a);
    add_squares(vb, square_b);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) multiply(d[g], va, vb, in ? load_pack(matrix + g * group + col).bits : zeros());
  }
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
    square_a += __shfl_xor_sync(0xffffffffU, square_a, step);
    square_b += __shfl_xor_sync(0xffffffffU, square_b, step);
  }
  if (lane % 4 == 0) squares[warp][a] = square_a, squares[warp][b] = square_b;
  __syncthreads();
  square_a = square_b = 0.0F;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) square_a += squares[i][a], square_b += squares[i][b];
  const float scale_a = rsqrtf(square_a / static_cast<float>(hidden) + kEpsilon);
  const float scale_b = rsqrtf(square_b / static_cast<float>(hidden) + kEpsilon);
#pragma unroll 4
  for (int start = warp * 32; start < scalar; start += kWarps * 32) {
    const int col = start + column;
    const bool in = col < scalar;
    const int at = hidden + inner + col;
    uint4 va = in ? load_pack(row_a + at).bits : zeros(), vb = in ? load_pack(row_b + at).bits : zeros();
    va = scaled_gelu(va, scale_a);
    vb = scaled_gelu(vb, scale_b);
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
      multiply(d[g], va, vb, in ? load_pack(matrix + g * group + hidden + col).bits : zeros());
  }
#pragma unroll 4
  for (int col = warp * 32 + column; col < inner; col += kWarps * 32) {
    const uint4 va = load_pack(row_a + hidden + col).bits, vb = load_pack(row_b + hidden + col).bits;
    if (has_a) *reinterpret_cast<uint4*>(row_a + hidden + col) = scaled_gelu(va, scale_a);
    if (has_b) *reinterpret_cast<uint4*>(row_b + hidden + col) = scaled_gelu(vb, scale_b);
  }
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const int head = g * 8 + lane % 4 * 2;
    sums[warp][a][head] = d[g][0], sums[warp][a][head + 1] = d[g][1];
    sums[warp][b][head] = d[g][2], sums[warp][b][head + 1] = d[g][3];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kHeads; i += kThreads) {
    const int row = i / kHeads, head = i % kHeads;
    if (first + row >= rows || head >= w.heads) continue;
    float sum = w.bias[blockIdx.y * kHeads + head];
#pragma unroll
    for (int j = 0; j < kWarps; ++j) sum += sums[j][row][head];
    w.weights[blockIdx.y * w.weights_tower + (first + row) * w.heads + head] = 1.0F / (1.0F + expf(-sum));
  }
}

template <class T, class D, int kCols>
__global__ void __launch_bounds__(kThreads)
    gated_add_kernel(GatedAdd add, const __grid_constant__ TowerRows to, unsigned groups, unsigned rows) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x, row = i / groups;
  if (row >= rows) return;
  const unsigned col = i % groups * kCols;
  float values[kCols], bias[kCols], base[kCols];
  D* out = static_cast<D*>(to.at[blockIdx.y]) + row * to.stride + col;
  load<kCols>(row_of<T>(add.rows, blockIdx.y, row) + col, values);
  load<kCols>(add.bias + blockIdx.y * add.heads * add.dim + col, bias);
  load<kCols>(out, base);
  float weight = 1.0F;
  if (add.weights != nullptr)
    weight = add.weights[blockIdx.y * add.weights_tower + row * add.heads + col / static_cast<unsigned>(add.dim)];
#pragma unroll
  for (int j = 0; j < kCols; ++j) base[j] = fmaf(weight, values[j] + bias[j], base[j]);
  store<kCols>(out, base);
}

// Whether `cols` values at a time lie aligned in all rows.
bool aligned(const TowerBatch& x, int64_t cols) {
  return reinterpret_cast<uintptr_t>(x.at) % 16 == 0 && x.tower % cols == 0 && x.row % cols == 0;
}
bool aligned(const TowerRows& x, int64_t towers, int64_t cols) {
  bool all = x.stride % cols == 0;
  for (int64_t i = 0; i < towers; ++i) all = all && reinterpret_cast<uintptr_t>(x.at[i]) % 16 == 0;
  return all;
}

dim3 grid(int64_t items, int64_t per_block, int64_t towers) {
  return {static_cast<unsigned>((items + per_block - 1) / per_block), static_cast<unsigned>(towers), 1};
}

// Calls `body` with a value of the type that the flag names.
template <class Body>
void with_type(bool bf16, const Body& body) {
  if (bf16) {
    body(__nv_bfloat16{});
  } else {
    body(float{});
  }
}

constexpr int kWide = 8;

}  // namespace

void gather_rows(const TowerRows& from, const TowerBatch& to, int64_t width, int64_t ones, int64_t towers, int64_t rows,
                 cudaStream_t stream) {
  const bool wide = width % kWide == 0 && aligned(from, towers, kWide) && aligned(to, kWide);
  const auto groups = static_cast<unsigned>(wide ? width / kWide : width);
  with_type(from.bf16, [&](auto source) {
    with_type(to.bf16, [&](auto target) {
      const auto kernel = wide ? gather_kernel<decltype(source), decltype(target), kWide>
                               : gather_kernel<decltype(source), decltype(target), 1>;
      launch("gather_rows", kernel, grid(groups * rows, kThreads, towers), dim3(kThreads), 0, stream, false, from, to,
             groups, static_cast<unsigned>(width), static_cast<int>(ones), static_cast<unsigned>(rows));
    });
  });
}

void norm_gelu(const TowerBatch& x, int64_t hidden, int64_t inner, int64_t towers, int64_t rows, cudaStream_t stream) {
  const bool wide = hidden % kWide == 0 && inner % kWide == 0 && aligned(x, kWide);
  with_type(x.bf16, [&](auto type) {
    const auto kernel = wide ? norm_gelu_kernel<decltype(type), kWide> : norm_gelu_kernel<decltype(type), 1>;
    launch("norm_gelu", kernel, grid(rows, kWarps, towers), dim3(kThreads), 0, stream, false, x,
           static_cast<int>(hidden), static_cast<int>(inner), static_cast<int>(rows));
  });
}

void norm_gelu_weigh(const TowerBatch& x, const Weigh& w, int64_t towers, int64_t rows, cudaStream_t stream) {
  const bool wide = x.bf16 && w.heads <= 2 * kHeadGroup && w.hidden % kWide == 0 && w.inner % kWide == 0 &&
                    w.scalar % kWide == 0 && aligned(x, kWide) && reinterpret_cast<uintptr_t>(w.matrix) % 16 == 0;
  if (wide) {
    const auto kernel = w.heads <= kHeadGroup ? norm_gelu_weigh_kernel<1> : norm_gelu_weigh_kernel<2>;
    launch("norm_gelu_weigh", kernel, grid(rows, 16, towers), dim3(kThreads), 0, stream, false, x, w,
           static_cast<int>(rows));
    return;
  }
  norm_gelu(x, w.hidden, w.inner + w.scalar, towers, rows, stream);
  with_type(x.bf16, [&](auto type) {
    launch("weigh", weigh_kernel<decltype(type)>, grid(rows, kWarps, towers), dim3(kThreads), 0, stream, false, x, w,
           static_cast<int>(rows));
  });
}

void gated_add(const GatedAdd& add, const TowerRows& to, int64_t towers, int64_t rows, cudaStream_t stream) {
  const bool wide = add.dim % kWide == 0 && aligned(add.rows, kWide) && aligned(to, towers, kWide) &&
                    reinterpret_cast<uintptr_t>(add.bias) % 16 == 0;
  const int64_t width = add.heads * add.dim;
  const auto groups = static_cast<unsigned>(wide ? width / kWide : width);
  with_type(add.rows.bf16, [&](auto source) {
    with_type(to.bf16, [&](auto target) {
      const auto kernel = wide ? gated_add_kernel<decltype(source), decltype(target), kWide>
                               : gated_add_kernel<decltype(source), decltype(target), 1>;
      launch("gated_add", kernel, grid(groups * rows, kThreads, towers), dim3(kThreads), 0, stream, false, add, to,
             groups, static_cast<unsigned>(rows));
    });
  });
}

}  // namespace c2c::cuda
