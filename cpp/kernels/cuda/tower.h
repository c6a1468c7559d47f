// What surrounds the products of many gated towers at once: their rows are brought together, normed, weighed, and added
// to the cache. Pointers are the device's; every function throws std::runtime_error where a
// launch fails. test/cpp/cuda_fuser_test.cpp compares a whole fusion with the plain one.
#pragma once
#include <cstdint>

using cudaStream_t = struct CUstream_st*;

namespace c2c::cuda {

// Towers of one launch: their rows' addresses are its arguments.
constexpr int64_t kMostTowers = 128;

// Where each tower's rows lie in memory of others (a KV cache), `stride` elements from row to row.
struct TowerRows {
  void* at[kMostTowers] = {};
  int64_t stride;
  bool bf16;  // else float
};

// Memory of the batch's own: row r of tower t begins at `at` + t · tower + r · row elements.
struct TowerBatch {
  void* at;
  int64_t tower, row;
  bool bf16;  // else float
};

// Copies `rows` rows of `width` values; behind them come `ones` values: a one, then zeros.
void gather_rows(const TowerRows& from, const TowerBatch& to, int64_t width, int64_t ones, int64_t towers, int64_t rows,
                 cudaStream_t stream);

// In every row x: x[hidden, hidden + inner) becomes its exact GELU times what the row's RMS norm (epsilon 1e-6) scales
// x[0, hidden) by: products are linear, so the scale may follow them.
void norm_gelu(const TowerBatch& x, int64_t hidden, int64_t inner, int64_t towers, int64_t rows, cudaStream_t stream);

// The heads' weights of a tower: sigmoid(matrix · (x[0, hidden), s) + bias).
struct Weigh {
  int64_t hidden, inner, scalar;  // a row: hidden, inner and scalar values
  const void* matrix;             // [towers, padded heads, hidden + scalar], of the batch's type; padding is zeros
  const float* bias;              // [towers, padded heads]
  int64_t heads;
  float* weights;  // [towers, rows, heads], the towers `weights_tower` apart
  int64_t weights_tower;
};
// Heads are padded to a multiple of this.
constexpr int64_t kHeadGroup = 8;

// norm_gelu, with s the exact GELU of the scaled x[hidden + inner, hidden + inner + scalar), which is left as it is or
// overwritten, and the weights from it.
void norm_gelu_weigh(const TowerBatch& x, const Weigh& weigh, int64_t towers, int64_t rows, cudaStream_t stream);

// to += weight · (rows + bias), in float, in every head: `bias` [towers, heads · dim], `weights` as in Weigh, of the
// first of `rows`; null for one.
struct GatedAdd {
  TowerBatch rows;
  const float* bias;
  const float* weights;
  int64_t weights_tower, heads, dim;
};
void gated_add(const GatedAdd& add, const TowerRows& to, int64_t towers, int64_t rows, cudaStream_t stream);

}  // namespace c2c::cuda
