// What ATen lacks: the loops of the fast path, compiled once for each instruction set and chosen at run time.
// Plain pointers and row strides (in elements); no allocation, no threads: callers split the work (see team.h).
#pragma once
#include <cstddef>
#include <cstdint>

namespace c2c {

struct Bf16 {
  uint16_t bits;
};

// How a packed weight is stored. Quantised ones multiply bf16 rows.
enum class Store : uint8_t { kFloat, kBf16, kInt8, kInt4 };

constexpr bool is_quantised(Store store) { return store == Store::kInt8 || store == Store::kInt4; }

// Weights [out, in] lie in blocks of kBlock outputs, so that one block is one stream for a single row and one tile for
// many.
constexpr int64_t kBlock = 64;
// Inputs that share a scale in quantised weights.
constexpr int64_t kGroup = 32;

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Inputs of a packed block after padding.
constexpr int64_t padded_inputs(Store store, int64_t in) {
  return store == Store::kFloat ? in : store == Store::kBf16 ? round_up(in, 2) : round_up(in, kGroup);
}

// Bytes of one block of kBlock outputs.
constexpr int64_t block_bytes(Store store, int64_t in) {
  const int64_t k = padded_inputs(store, in);
  switch (store) {
    case Store::kFloat:
      return k * kBlock * 4;
    case Store::kBf16:
      return k * kBlock * 2;
    case Store::kInt8:
      return k / kGroup * (kBlock * 2 + kGroup * kBlock);  // a group: see codes.inl
    case Store::kInt4:
      return k / kGroup * (kBlock * 2 + kGroup * kBlock / 2);
  }
  return 0;
}

// What becomes of a product's outputs.
enum class After : uint8_t {
  kStore,     // written as float
  kStoreRow,  // written in the rows' type
  kAdd,       // added to float
  kGelu,      // exact GELU, written in the rows' type
  kGateSilu,  // a block holds 32 gates and 32 ups: activation(gate) · up, 32 outputs in the rows' type
  kGateGelu,
  kGateGeluTanh,
};

// kGroup values of a row as whole numbers of 16 bits times a scale, for products with quantised weights. Which numbers
// a word holds is the instruction set's affair.
struct RowCodes {
  uint32_t words[kGroup / 2];
  int32_t sum;  // of the numbers
  float scale;
};
// Rows up to which quantised weights are multiplied with codes; for more, blocks are turned to bf16 once.
constexpr int64_t kCodedRows = 8;

// out[r] = after(x[r] · wᵀ + bias). Rows are float for float weights, else bf16; `x2` are further inputs, behind x's,
// whose weights follow in the block.
struct Product {
  Store store = Store::kFloat;
  const void* x = nullptr;
  int64_t x_stride = 0, in = 0;
  const RowCodes* codes = nullptr;  // instead of x and x2, for quantised weights: [rows, groups]
  const void* x2 = nullptr;
  int64_t x2_stride = 0, in2 = 0;
  const std::byte* weight = nullptr;  // block 0
  const float* bias = nullptr;        // padded to whole blocks
  After after = After::kStore;
  void* out = nullptr;
  int64_t out_stride = 0, outputs = 0;  // outputs beyond `outputs` are not written
  int64_t rows = 0;
};

// A run of a cache's rows: keys and values of one layer, all heads.
struct RowRun {
  const void* keys;
  const void* values;
  int64_t stride;  // elements from row to row
  int64_t rows;
};

// What one query sees: the first `rows` rows of the runs, less those that the window hides.
struct Sight {
  const RowRun* runs = nullptr;
  int64_t rows = 0;
  const uint32_t* positions = nullptr;  // of all rows; null without a window
  uint32_t position = 0;                // the query's
  int64_t window = 0;
};

// Attention of one row's queries in `heads` KV heads that lie side by side: `group` query heads to each.
struct Attention {
  bool bf16 = false;  // the type of cache and queries
  Sight sight;
  int64_t begin = 0, end = 0;  // rows of the sight that this call reads
  int64_t head_offset = 0;     // elements from a row's start to the first KV head
  int64_t heads = 1, dim = 0, group = 0;
  const void* query = nullptr;  // [heads · group, dim]; three rows more can be read, whose values do not matter
  float scale = 1;
  float* out = nullptr;   // [heads · group, dim]: sums weighted by exp(score - top)
  float* top = nullptr;   // [heads · group]
  float* mass = nullptr;  // [heads · group]
};

// Attention of many rows by blocked products, for one query head and one tile of queries.
struct TileAttention {
  bool bf16 = false;
  const std::byte* keys = nullptr;    // packed: blocks of 64 rows, [dim] inputs
  const std::byte* values = nullptr;  // packed: blocks of 64 dims, [seen] inputs
  int64_t seen = 0, dim = 0;
  const void* query = nullptr;
  int64_t query_stride = 0, rows = 0;
  int64_t first = 0;                    // query r sees rows 0 … first + r
  const uint32_t* positions = nullptr;  // of all seen rows; null without a window
  int64_t window = 0;
  float scale = 1;
  void* out = nullptr;
  int64_t out_stride = 0;
  std::byte* scratch = nullptr;  // tile_scratch() bytes
};
constexpr int64_t kTileRows = 48, kTileKeys = 256;
constexpr int64_t tile_scratch(int64_t dim) {
  return kTileRows * (kTileKeys * 8 + round_up(dim, kBlock) * 4 + 16) + 256;
}

struct Rope {
  const float* cos;
  const float* sin;  // [dim / 2] of one row
};

// What shares low and scale in rows of 8 or 4 bits: rows of a channel of keys, or channels of a row of values.
constexpr int64_t kCodeRows = 32, kCodeChannels = 32;

// One row of codes. In 4 bits byte i of a group holds channels i and i + kCodeChannels / 2.
struct Restore {
  int bits = 8;
  bool grouped = false;  // low and scale are those of kCodeChannels channels, else each channel's own
  const uint8_t* codes = nullptr;
  const Bf16* lows = nullptr;
  const Bf16* scales = nullptr;
  int64_t count = 0;   // channels
  bool bf16 = false;   // what is written; else float
  bool round = false;  // floats as bfloat16 would have them
  void* out = nullptr;
};

// One table an instruction set; what each kernel does is said in its file.
struct Kernels {
  const char* name;
#define KERNEL(name, ...) void (*name)(__VA_ARGS__);
#include "kernels/cpu/kernels.inl"
#undef KERNEL
};

constexpr int64_t product_scratch(Store store, int64_t in) {
  return is_quantised(store) ? padded_inputs(store, in) * kBlock * 2 + 64 : 64;
}

// The best table that this machine runs; C2C_KERNELS=<name> asks for a lesser one.
const Kernels& kernels();
// All tables that this machine runs, the plainest first.
struct KernelList {
  const Kernels* const* tables;
  size_t count;
};
KernelList all_kernels();

}  // namespace c2c
