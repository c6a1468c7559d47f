// The decoder's kernels on CUDA devices: plain pointers to device memory, strides in elements. Nothing is allocated and
// nothing waited for. Each throws std::runtime_error where a launch fails. test/cpp/cuda_test.cpp compares them with
// plain ATen operations.
#pragma once
#include <cstddef>
#include <cstdint>

using cudaStream_t = struct CUstream_st*;

namespace c2c::cuda {

enum class Type : uint8_t { kFloat, kBf16 };
enum class Gate : uint8_t { kSilu, kGelu, kGeluTanh };

// x[r] += delta[r], or its RMS norm where `delta_norm` is given; then out[i] = norm(x[pick[i]]) · weight.
struct AddNorm {
  Type type;                    // of delta and out
  float* x;                     // [rows, width]
  const void* delta = nullptr;  // [rows, width], or null
  const float* delta_norm = nullptr;
  const float* weight;
  void* out;  // [rows, width]; dense where rows are picked
  int64_t rows, width;
  float eps;
  const int32_t* pick = nullptr;  // null: every row
};
void add_norm(const AddNorm& p, cudaStream_t stream);

// out[r][i] = activation(gate[r][i]) · up[r][i]; gates and ups have rows `stride` apart, out is dense and may be the
// gates where those are.
struct Gated {
  Type type;
  Gate activation;
  const void *gate, *up;
  void* out;
  int64_t rows, width, stride;
};
void gated(const Gated& p, cudaStream_t stream);

// A run of a cache's rows, all layers: a layer's keys begin at keys + layer · layer_bytes, its values part_bytes
// behind.
struct CacheRun {
  std::byte* keys;
  int64_t layer_bytes, part_bytes, rows;
};

// One row of a batch, which attends alone.
struct QueryRow {
  const CacheRun* runs;  // they hold at least `seen` rows
  int32_t run_count, seen;
  uint32_t token, position;
  std::byte* place;  // where the row's key of layer 0 goes; null where the cache holds it already
  int64_t layer_bytes, part_bytes;
  const uint32_t* positions;  // of all rows it sees; null where no window hides any
};

// The heads' shape, and how queries and keys are normed (null: not) and turned.
struct HeadTurn {
  int64_t heads, kv_heads, dim;
  const float* query_norm = nullptr;
  const float* key_norm = nullptr;
  float eps = 0;
  const float* turns;  // [rows, dim]: cosines, then sines, of each row's angles
};

// turns[r] = cosines, then sines, of position · frequencies [dim / 2]: angles in float32, as transformers has them.
void angles(const float* frequencies, const QueryRow* at, int64_t rows, int64_t dim, float* turns, cudaStream_t stream);

// Norms and turns queries in place, and puts normed and turned keys, and values, where rows[r] says.
struct Turn : HeadTurn {
  Type type;
  void* query;              // [rows, heads · dim], or null
  const void *key, *value;  // [rows, kv_heads · dim], or null
  int64_t query_stride, kv_stride;
  const QueryRow* at;
  int64_t rows, layer;
};
void turn(const Turn& p, cudaStream_t stream);

// Attention of single rows over their caches. Queries are turned already (`query`), or all three come as products left
// them (`inputs`): then they are normed and turned, and key and value put into the cache, on the way.
struct Attend : HeadTurn {
  Type type;  // of caches, query and out
  const void* query = nullptr;
  int64_t query_stride = 0;
  const float* inputs = nullptr;  // [rows, (heads + 2 kv_heads) · dim]
  const QueryRow* at;
  int64_t rows, layer, window;
  float scale;
  int64_t splits;        // blocks for each head of a row
  float* partial;        // attend_scratch() floats, where splits > 1
  uint32_t* tickets;     // [rows · kv_heads], zero before and after
  void* out;             // [rows, heads · dim]
  bool overlap = false;  // see launch.cuh
};
// Whether there is a kernel for heads of this shape.
bool attends(Type type, int64_t heads, int64_t kv_heads, int64_t dim);
int64_t attend_scratch(int64_t rows, int64_t heads, int64_t dim, int64_t splits);
void attend(const Attend& p, cudaStream_t stream);

// x[r] = scale · table[at[r].token].
void embed(Type table_type, const void* table, float scale, const QueryRow* at, int64_t rows, int64_t width, float* x,
           cudaStream_t stream);

// Products of up to kMostRows rows with weights [outputs, in], read once: memory's speed is the limit.
constexpr int64_t kMostRows = 8;
enum class Then : uint8_t { kStore, kAdd, kGate };  // float written, added to float, activation(first) · second
struct RowProduct {
  Type type;  // of weights, biases, input and of gated outputs
  int64_t rows, in;
  const float* x = nullptr;  // [rows, in], to be normed by `norm`
  const float* norm = nullptr;
  float eps = 0;
  const void* input = nullptr;  // or rows as they are
  int64_t count = 1;            // weights below each other
  const void* weights[3] = {};
  const void* biases[3] = {};  // or null
  int64_t outputs[3] = {};
  Then then = Then::kStore;
  Gate activation = Gate::kSilu;
  void* out;
  int64_t out_stride;
  bool overlap = false;  // see launch.cuh
};
// Whether so many rows of this length have a kernel: they are read in 16-byte pieces and lie in shared memory.
bool multiplies(Type type, int64_t rows, int64_t in);
void row_product(const RowProduct& p, cudaStream_t stream);

}  // namespace c2c::cuda
