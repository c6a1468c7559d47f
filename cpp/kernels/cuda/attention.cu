// Attention of single rows over their caches: a block for each KV head and piece of a row's cache, which reads every
// key and value once for all query heads of the group; the last block of a head joins the pieces.
#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gate.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/machine.cuh"

namespace c2c::cuda {

namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kAtOnce = 4;  // rows whose keys and values a lane has on their way

// A running softmax of G heads, and this lane's share of the weighted values.
template <int G, int W>
struct Running {
  float top[G], mass[G], sum[G][W];
};

__device__ inline float rescale(float top, float to) { return top == -INFINITY ? 0.0F : __expf(top - to); }

template <class T>
__device__ inline const T* value_at(const std::byte* base, int64_t layer, int64_t layer_bytes, int64_t bytes) {
  return reinterpret_cast<const T*>(base + layer * layer_bytes + bytes);
}

// G: at least the query heads of a KV head. L: lanes that share a row, each with 16 bytes of it.
template <class T, int G, int L>
__global__ void __launch_bounds__(kThreads) attend_kernel(Attend p) {
  constexpr int width = Pack<T>::kCount, dim = L * width, together = kWarp / L;
  __shared__ bool last;
  const int group = static_cast<int>(p.heads / p.kv_heads);
  auto* queries = dynamic_shared<float>();  // [group, dim]
  float* scratch = queries + group * dim;   // [kWarps, dim], then the pieces of the warps
  T* fresh =
      reinterpret_cast<T*>(scratch + max(kWarps * group * (dim + 2),
                                         2 * group * static_cast<int>(p.splits)));  // key and value of the new row
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int head = static_cast<int>(blockIdx.x), split = static_cast<int>(blockIdx.y);
  const int64_t r = blockIdx.z;
  let_next_start();
  // Rows of earlier steps, and what says where they lie, were there before the kernel in front began.
  const QueryRow at = p.at[r];
  const int each = (at.seen + static_cast<int>(p.splits) - 1) / static_cast<int>(p.splits);
  const int begin = split * each, end = min(begin + each, at.seen);
  const bool raw = p.inputs != nullptr;
  const float* turns = raw ? p.turns + r * dim : nullptr;
  const bool brings = raw && at.place != nullptr && begin < at.seen && end == at.seen;  // the new row is this block's

  const int stop = brings ? end - 1 : end;
  const int64_t row_values = p.kv_heads * dim, from_head = static_cast<int64_t>(head) * dim + lane % L * width;
  constexpr int stride = kWarps * together;
  Pack<T> key[kAtOnce], value[kAtOnce];
  bool seen[kAtOnce];
  // Fetches rows [row, until) of a run whose first row is the cache's row `before`; `least`: any row of it.
  const auto fetch = [&](const CacheRun& cache, int row, int until, int before, int least) {
    const T* keys = value_at<T>(cache.keys, p.layer, cache.layer_bytes, 0) + from_head;
    const T* values = value_at<T>(cache.keys, p.layer, cache.layer_bytes, cache.part_bytes) + from_head;
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int own = row + u * stride + warp * together + lane / L;
      seen[u] = own < until && (at.positions == nullptr ||
                                static_cast<int64_t>(at.position) - static_cast<int64_t>(at.positions[own]) < p.window);
      const int64_t offset = static_cast<int64_t>((own < until ? own : least) - before) * row_values;
      key[u] = load_pack(keys + offset);
      value[u] = load_pack(values + offset);
    }
  };
  // Where the first run has rows of this piece that earlier steps wrote, they come while the queries are computed. Rows
  // that this step brings may be among those only where it does not bring them itself: those must be waited for.
  const CacheRun first_run = at.runs[0];
  const bool early = raw && begin < stop && begin < first_run.rows;
  if (early) fetch(first_run, begin, static_cast<int>(min(static_cast<int64_t>(stop), first_run.rows)), 0, begin);
  wait_for_previous();

  for (int g = warp; g < group; g += kWarps) {
    const int64_t q = static_cast<int64_t>(head) * group + g;
    float* to = queries + g * dim;
    if (raw) {
      const float* from = p.inputs + r * (p.heads + 2 * p.kv_heads) * dim + q * dim;
      float* values = scratch + warp * dim;
      head_in(from, dim, lane, p.query_norm, p.eps, values);
      for (int d = lane; d < dim; d += kWarp)
        to[d] = to_float(from_float<T>(turned_value(values, d, dim, turns))) * p.scale;
      __syncwarp();
    } else {
      const T* from = static_cast<const T*>(p.query) + r * p.query_stride + q * dim;
      for (int d = lane; d < dim; d += kWarp) to[d] = to_float(from[d]) * p.scale;
    }
  }
  if (brings && warp == kWarps - 1) {
    const float* from = p.inputs + r * (p.heads + 2 * p.kv_heads) * dim + (p.heads + head) * dim;
    float* values = scratch + warp * dim;
    head_in(from, dim, lane, p.key_norm, p.eps, values);
    T* key = reinterpret_cast<T*>(at.place + p.layer * at.layer_bytes) + head * dim;
    T* value = reinterpret_cast<T*>(at.place + p.layer * at.layer_bytes + at.part_bytes) + head * dim;
    for (int d = lane; d < dim; d += kWarp) {
      key[d] = fresh[d] = from_float<T>(turned_value(values, d, dim, turns));
      value[d] = fresh[dim + d] = from_float<T>(from[p.kv_heads * dim + d]);
    }
  }
  __syncthreads();

  const int part = lane % L * width;
  float query[G][width];
#pragma unroll
  for (int g = 0; g < G; ++g)
#pragma unroll
    for (int i = 0; i < width; ++i) query[g][i] = g < group ? queries[g * dim + part + i] : 0.0F;
  Running<G, width> run;
#pragma unroll
  for (int g = 0; g < G; ++g) {
    run.top[g] = -INFINITY;
    run.mass[g] = 0;
#pragma unroll
    for (int i = 0; i < width; ++i) run.sum[g][i] = 0;
  }

  const auto take = [&](const Pack<T>(&key)[kAtOnce], const Pack<T>(&value)[kAtOnce], const bool(&seen)[kAtOnce]) {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      float score[kAtOnce], top = run.top[g];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        float dot = 0;
#pragma unroll
        for (int i = 0; i < width; ++i) dot += query[g][i] * key[u][i];
#pragma unroll
        for (int step = L / 2; step > 0; step /= 2) dot += __shfl_xor_sync(0xffffffffU, dot, step);
        score[u] = seen[u] ? dot : -INFINITY;
        top = fmaxf(top, score[u]);
      }
      const float before = rescale(run.top[g], top);
      run.top[g] = top;
      run.mass[g] *= before;
#pragma unroll
      for (int i = 0; i < width; ++i) run.sum[g][i] *= before;
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const float weight = rescale(score[u], top);
        run.mass[g] += weight;
#pragma unroll
        for (int i = 0; i < width; ++i) run.sum[g][i] += weight * value[u][i];
      }
    }
  };

  int before = 0;
  for (int n = 0; n < at.run_count && before < stop; ++n) {
    const CacheRun cache = n == 0 ? first_run : at.runs[n];
    const int first = max(begin, before),
              until = static_cast<int>(min(static_cast<int64_t>(stop), before + cache.rows));
    for (int row = first; row < until; row += stride * kAtOnce) {
      if (n > 0 || row > first || !early) fetch(cache, row, until, before, first);
      take(key, value, seen);
    }
    before += static_cast<int>(cache.rows);
  }
  if (brings && warp == 0) {
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      seen[u] = u == 0 && lane < L;
      key[u] = load_pack(fresh + part);
      value[u] = load_pack(fresh + dim + part);
    }
    take(key, value, seen);
  }

  // The rows that a warp's lanes had in turn.
#pragma unroll
  for (int g = 0; g < G; ++g) {
#pragma unroll
    for (int step = L; step < kWarp; step *= 2) {
      const float other = __shfl_xor_sync(0xffffffffU, run.top[g], step), top = fmaxf(run.top[g], other);
      const float own = rescale(run.top[g], top), theirs = rescale(other, top);
      run.top[g] = top;
      run.mass[g] = run.mass[g] * own + __shfl_xor_sync(0xffffffffU, run.mass[g], step) * theirs;
#pragma unroll
      for (int i = 0; i < width; ++i)
        run.sum[g][i] = run.sum[g][i] * own + __shfl_xor_sync(0xffffffffU, run.sum[g][i], step) * theirs;
    }
  }
  // Pieces of [dim] sums, top and mass.
  constexpr int piece = dim + 2;
  if (lane < L) {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      if (g >= group) continue;
      float* to = scratch + (warp * group + g) * piece;
#pragma unroll
      for (int i = 0; i < width; ++i) to[part + i] = run.sum[g][i];
      if (lane == 0) {
        to[dim] = run.top[g];
        to[dim + 1] = run.mass[g];
      }
    }
  }
  __syncthreads();

  const auto join_warps = [&](int g, int d, float& top, float& mass) {
    const float* pieces = scratch + g * piece;
    top = -INFINITY;
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, pieces[w * group * piece + dim]);
    mass = 0;
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) {
      const float weight = rescale(pieces[w * group * piece + dim], top);
      mass += weight * pieces[w * group * piece + dim + 1];
      sum += weight * pieces[w * group * piece + d];
    }
    return sum;
  };
  T* out = static_cast<T*>(p.out) + (r * p.heads + static_cast<int64_t>(head) * group) * dim;
  float top, mass;
  if (p.splits == 1) {
    for (int i = static_cast<int>(threadIdx.x); i < group * dim; i += kThreads) {
      const float sum = join_warps(i / dim, i % dim, top, mass);
      out[i] = from_float<T>(sum / mass);
    }
    return;
  }
  const int64_t place = r * p.kv_heads + head;
  float* pieces = p.partial + place * p.splits * group * piece;
  for (int i = static_cast<int>(threadIdx.x); i < group * dim; i += kThreads) {
    const int g = i / dim, d = i % dim;
    float* to = pieces + (split * group + g) * piece;
    to[d] = join_warps(g, d, top, mass);
    if (d == 0) {
      to[dim] = top;
      to[dim + 1] = mass;
    }
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(p.tickets + place, 1U) + 1 == static_cast<uint32_t>(p.splits);
  __syncthreads();
  if (!last) return;
  __threadfence();
  const int splits = static_cast<int>(p.splits);
  float *tops = scratch, *weights = scratch + group * splits;  // [group, splits]
  for (int i = static_cast<int>(threadIdx.x); i < group * splits; i += kThreads) {
    const float* from = pieces + (i % splits * group + i / splits) * piece;
    tops[i] = __ldcg(from + dim);
    weights[i] = __ldcg(from + dim + 1);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < group * dim; i += kThreads) {
    const int g = i / dim, d = i % dim;
    top = -INFINITY;
    for (int n = 0; n < splits; ++n) top = fmaxf(top, tops[g * splits + n]);
    mass = 0;
    float sum = 0;
#pragma unroll 8
    for (int n = 0; n < splits; ++n) {
      const float weight = rescale(tops[g * splits + n], top);
      mass += weight * weights[g * splits + n];
      sum += weight * __ldcg(pieces + (n * group + g) * piece + d);
    }
    out[i] = from_float<T>(sum / mass);
  }
  if (threadIdx.x == 0) p.tickets[place] = 0;
}

using Kernel = void (*)(Attend);

template <class T, int L>
Kernel for_group(int64_t group) {
  return group == 1   ? attend_kernel<T, 1, L>
         : group == 2 ? attend_kernel<T, 2, L>
         : group <= 4 ? attend_kernel<T, 4, L>
                      : attend_kernel<T, 8, L>;
}

template <class T>
Kernel choose(int64_t group, int64_t dim) {
  switch (dim / Pack<T>::kCount) {
    case 2:
      return for_group<T, 2>(group);
    case 4:
      return for_group<T, 4>(group);
    case 8:
      return for_group<T, 8>(group);
    case 16:
      return for_group<T, 16>(group);
    default:
      return for_group<T, 32>(group);
  }
}

}  // namespace

bool attends(Type type, int64_t heads, int64_t kv_heads, int64_t dim) {
  const int64_t width = type == Type::kBf16 ? 8 : 4, lanes = dim / width;
  return dim % width == 0 && lanes >= 2 && lanes <= kWarp && (lanes & (lanes - 1)) == 0 && heads % kv_heads == 0 &&
         heads / kv_heads <= 8;
}

int64_t attend_scratch(int64_t rows, int64_t heads, int64_t dim, int64_t splits) {
  return splits > 1 ? rows * heads * splits * (dim + 2) : 0;
}

void attend(const Attend& p, cudaStream_t stream) {
  const int64_t group = p.heads / p.kv_heads;
  const bool bf16 = p.type == Type::kBf16;
  const auto kernel = bf16 ? choose<__nv_bfloat16>(group, p.dim) : choose<float>(group, p.dim);
  const int64_t floats = group * p.dim + std::max(kWarps * group * (p.dim + 2), 2 * group * p.splits);
  const auto shared = static_cast<size_t>(floats) * 4 + static_cast<size_t>(2 * p.dim) * (bf16 ? 2 : 4);
  if (shared > 48 * 1024) {
    checked(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared)),
            "attend");
  }
  launch("attend", kernel,
         dim3(static_cast<unsigned>(p.kv_heads), static_cast<unsigned>(p.splits), static_cast<unsigned>(p.rows)),
         dim3(kThreads), shared, stream, p.overlap, p);
}

}  // namespace c2c::cuda
