// Products of many rows by multiplying and adding floats: a block's weights are taken in panels of some inputs while a
// group of rows passes by. Short panels stay in the first-level cache. Long ones come from the second-level cache for
// every tile of rows, and sums stay in registers for as long: faster where that cache keeps up with the units. Weights
// of bf16 become float once a panel, not once a tile.
#ifndef KERNEL

namespace c2c::C2C_ISA {

constexpr int64_t kPanel = 64, kLongPanel = 512;        // inputs of a panel
constexpr int64_t kPanelRows = kLanes > 4 ? 6 : kRows;  // rows of a register tile
constexpr int64_t kPanelGroup = 16 * kPanelRows;        // rows that pass by a panel

// AMD's second-level caches keep up with AVX-512's units, Intel's do not. Fewer rows wait for memory, which short
// panels ask for more evenly.
constexpr int64_t kLongPanelsFrom = kFloatRows ? INT64_MAX : 8 * kPanelRows;

// Bytes to ask for while a tile is multiplied, `step` with each input. Asked for all at once, they would hold it up.
struct Ahead {
  const std::byte* from = nullptr;
  int64_t step = 0;
};

// sums[r] += x[r] · panel for R rows.
template <bool Long, int64_t R>
void panel_tile(float* sums, const float* x, int64_t stride, const float* panel, int64_t count, Ahead ahead) {
  for (int64_t column = 0; column < kBlock; column += kTile) {
    Vec s[R][kVectors] = {};
    const float* w = panel + column;
    for (int64_t k = 0; k < count; ++k, w += kBlock) {
      if (column == 0)
        for (int64_t i = 0; i < ahead.step; i += 64)
          __builtin_prefetch(ahead.from + k * ahead.step + i, 0, Long ? 2 : 3);  // into the cache that it stays in
      Vec b[kVectors];
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) b[v] = load(w + v * kLanes);
#pragma GCC unroll 6
      for (int64_t r = 0; r < R; ++r) {
        const Vec a = spread(x[r * stride + k]);
#pragma GCC unroll 4
        for (int64_t v = 0; v < kVectors; ++v) s[r][v] += a * b[v];
      }
    }
#pragma GCC unroll 6
    for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) {
        float* sum = sums + r * kBlock + column + v * kLanes;
        store(sum, load(sum) + s[r][v]);
      }
  }
}

template <bool Long>
C2C_INLINE void panel_tile(int64_t rows, float* sums, const float* x, int64_t stride, const float* panel, int64_t count,
                           Ahead ahead) {
  switch (rows) {
    case 1:
      return panel_tile<Long, 1>(sums, x, stride, panel, count, ahead);
    case 2:
      return panel_tile<Long, 2>(sums, x, stride, panel, count, ahead);
    case 3:
      return panel_tile<Long, 3>(sums, x, stride, panel, count, ahead);
    case 4:
      return panel_tile<Long, 4>(sums, x, stride, panel, count, ahead);
    case 5:
      return panel_tile<Long, 5>(sums, x, stride, panel, count, ahead);
    default:
      return panel_tile<Long, 6>(sums, x, stride, panel, count, ahead);
  }
}

// A panel of `count` inputs as floats, [count][kBlock].
C2C_INLINE const float* widened(const Bf16* weight, int64_t count, float* out) {
  const auto* w = reinterpret_cast<const std::byte*>(weight);
  for (int64_t k = 0; k < count; k += 2)
    for (int64_t c = 0; c < kBlock; c += kLanes, w += kLanes * 4) {
      const auto two = read<Bits>(w);
      store(out + k * kBlock + c, (Vec)(two << 16));
      store(out + (k + 1) * kBlock + c, (Vec)(two & 0xffff0000U));
    }
  return out;
}
C2C_INLINE const float* widened(const float* weight, int64_t, float*) { return weight; }

// Adds the products of `in` inputs to the sums of a group of rows.
template <class T, bool Long>
void panel_inputs(float* sums, int64_t rows, const T* x, int64_t stride, const T* weight, int64_t in) {
  alignas(64) float space[sizeof(T) == 2 ? kPanel * kBlock : 1];
  alignas(64) float wide_rows[sizeof(T) == 2 ? kPanelRows * kPanel : 1];
  const int64_t pieces = 1 + (in - 1) / kLongPanel;
  const int64_t length = Long ? (in + pieces - 1) / pieces : kPanel;  // even pieces
  for (int64_t k0 = 0; k0 < in; k0 += length) {
    const int64_t count = smaller(length, in - k0);
    const float* panel = widened(weight + k0 * kBlock, count, space);
    int64_t parts = (rows + kPanelRows - 1) / kPanelRows;
    // The first tiles ask for the panel behind this one, a line with each input where there are tiles enough.
    constexpr int64_t kInput = kBlock * static_cast<int64_t>(sizeof(T));
    const int64_t asking = smaller(parts, kInput / 64);
    Ahead ahead{reinterpret_cast<const std::byte*>(weight + (k0 + count) * kBlock), kInput / asking};
    for (int64_t row = 0, part, tile = 0; row < rows; row += part, --parts, ++tile) {
      if (tile == asking) ahead = {};
      part = (rows - row + parts - 1) / parts;  // even tiles: 8 rows are 4 + 4, not 6 + 2
      const T* from = x + row * stride + k0;
      // The next tile's rows lie in a cache further away. (Hardware sees long ones come.)
      for (int64_t r = part; !Long && r < smaller(2 * part, rows - row); ++r)
        for (int64_t k = 0; k < count; k += 64 / static_cast<int64_t>(sizeof(T)))
          __builtin_prefetch(from + r * stride + k);
      if constexpr (sizeof(T) == 2) {
        for (int64_t r = 0; r < part; ++r) {
          int64_t k = 0;
          for (; k + kLanes <= count; k += kLanes) store(wide_rows + r * kPanel + k, load(from + r * stride + k));
          for (; k < count; ++k) wide_rows[r * kPanel + k] = wide(from[r * stride + k]);
        }
        panel_tile<Long>(part, sums + row * kBlock, wide_rows, kPanel, panel, count, ahead);
      } else {
        panel_tile<Long>(part, sums + row * kBlock, from, stride, panel, count, ahead);
      }
      ahead.from += count * ahead.step;
    }
  }
}

template <class T, bool Long>
void panels(const Product& p, int64_t block, const std::byte* weight) {
  alignas(64) float sums[kPanelGroup * kBlock];
  const T* w = reinterpret_cast<const T*>(weight);
  for (int64_t row = 0; row < p.rows; row += kPanelGroup) {
    const int64_t rows = smaller(kPanelGroup, p.rows - row);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < kBlock; c += kLanes)
        store(sums + r * kBlock + c, p.bias ? load(p.bias + block * kBlock + c) : Vec{});
    panel_inputs<T, Long>(sums, rows, static_cast<const T*>(p.x) + row * p.x_stride, p.x_stride, w, p.in);
    if (p.in2 > 0)
      panel_inputs<T, Long>(sums, rows, static_cast<const T*>(p.x2) + row * p.x2_stride, p.x2_stride, w + p.in * kBlock,
                            p.in2);
    finish<T>(p, block, row, rows, sums);
  }
}

}  // namespace c2c::C2C_ISA

#endif
