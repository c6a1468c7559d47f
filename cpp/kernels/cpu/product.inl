// Products of rows with packed weights: one register tile of up to kRows rows × kBlock outputs, for one row and for
// many. Many rows go through panels where these are faster, and few through codes.inl where weights are quantised.
#ifdef KERNEL

// Blocks [begin, end) of a product; `scratch`: product_scratch() bytes of the calling thread.
KERNEL(product, const Product&, int64_t begin, int64_t end, std::byte* scratch)

#else

namespace c2c::C2C_ISA {

template <int64_t R, int64_t V>
using Sums = Vec[R][V];

C2C_INLINE Vec low(uint32_t two) { return spread(__builtin_bit_cast(float, two << 16)); }
C2C_INLINE Vec high(uint32_t two) { return spread(__builtin_bit_cast(float, two & 0xffff0000U)); }

template <int64_t R, int64_t V>
C2C_INLINE void dot_float(Sums<R, V>& sums, const float* x, int64_t stride, const std::byte* w, int64_t in) {
  for (int64_t k = 0; k < in; ++k, w += kBlock * 4) {
    prefetch<V * kLanes * 4>(w);
    Vec b[V];
#pragma GCC unroll 4
    for (int64_t v = 0; v < V; ++v) b[v] = read<Vec>(w + v * sizeof(Vec));
#pragma GCC unroll 6
    for (int64_t r = 0; r < R; ++r) {
      const Vec a = spread(x[r * stride + k]);
#pragma GCC unroll 4
      for (int64_t v = 0; v < V; ++v) sums[r][v] += a * b[v];
    }
  }
}

template <int64_t R, int64_t V>
C2C_INLINE void dot_bf16(Sums<R, V>& sums, const Bf16* x, int64_t stride, const std::byte* w, int64_t in, Lines* next) {
  for (int64_t k = 0; k < in; k += 2, w += kBlock * 4) {
    if (next == nullptr) {
      prefetch<V * kLanes * 4>(w);
    } else {
      next->ask();
    }
#if defined(__AVX512BF16__)
    __m512bh b[V];
#pragma GCC unroll 4
    for (int64_t v = 0; v < V; ++v) b[v] = read<__m512bh>(w + v * 64);
#pragma GCC unroll 6
    for (int64_t r = 0; r < R; ++r) {
      const auto a = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair(x + r * stride + k)));
#pragma GCC unroll 4
      for (int64_t v = 0; v < V; ++v) sums[r][v] = (Vec)_mm512_dpbf16_ps((__m512)sums[r][v], a, b[v]);
    }
#else
    Vec even[V], odd[V];
#pragma GCC unroll 4
    for (int64_t v = 0; v < V; ++v) {
      const auto two = read<Bits>(w + v * sizeof(Vec));
      even[v] = (Vec)(two << 16);
      odd[v] = (Vec)(two & 0xffff0000U);
    }
#pragma GCC unroll 6
    for (int64_t r = 0; r < R; ++r) {
      const uint32_t two = pair(x + r * stride + k);
      const Vec a = low(two), c = high(two);
#pragma GCC unroll 4
      for (int64_t v = 0; v < V; ++v) sums[r][v] += a * even[v];
#pragma GCC unroll 4
      for (int64_t v = 0; v < V; ++v) sums[r][v] += c * odd[v];
    }
#endif
  }
}

// R rows × V vectors of a block, from `column` on. `next`: what to ask for; null: more of the same block.
template <Store S, int64_t R, int64_t V>
C2C_INLINE void tile_columns(const Product& p, int64_t block, const std::byte* weight, int64_t row, int64_t column,
                             Lines* next, float* out) {
  using T = std::conditional_t<S == Store::kFloat, float, Bf16>;
  const T* x = static_cast<const T*>(p.x) + row * p.x_stride;
  const T* x2 = p.in2 > 0 ? static_cast<const T*>(p.x2) + row * p.x2_stride : nullptr;
  const std::byte* w = weight + column * 4;
  const std::byte* w2 = w + p.in * kBlock * static_cast<int64_t>(sizeof(T));
  Sums<R, V> sums;
#pragma GCC unroll 4
  for (int64_t v = 0; v < V; ++v) {
    const Vec start = p.bias ? load(p.bias + block * kBlock + column + v * kLanes) : Vec{};
#pragma GCC unroll 6
    for (int64_t r = 0; r < R; ++r) sums[r][v] = start;
  }
  if constexpr (S == Store::kFloat) {
    dot_float<R, V>(sums, x, p.x_stride, w, p.in);
    if (x2 != nullptr) dot_float<R, V>(sums, x2, p.x2_stride, w2, p.in2);
  } else {
    dot_bf16<R, V>(sums, x, p.x_stride, w, p.in, next);
    if (x2 != nullptr) dot_bf16<R, V>(sums, x2, p.x2_stride, w2, p.in2, next);
  }
#pragma GCC unroll 6
  for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int64_t v = 0; v < V; ++v) store(out + r * kBlock + column + v * kLanes, sums[r][v]);
}

template <Store S, int64_t R>
void tile(const Product& p, int64_t block, const std::byte* weight, int64_t row, Lines* next) {
  using T = std::conditional_t<S == Store::kFloat, float, Bf16>;
  alignas(64) float out[R * kBlock];
  expect(p, block, row, R);
  if (p.outputs - block * kBlock <= kLanes && p.after == After::kStore) {
    tile_columns<S, R, 1>(p, block, weight, row, 0, next, out);
  } else {
    for (int64_t column = 0; column < kBlock; column += kTile)
      tile_columns<S, R, kVectors>(p, block, weight, row, column, next, out);
  }
  finish<T>(p, block, row, R, out);
}

template <Store S>
C2C_INLINE void tile(int64_t rows, const Product& p, int64_t block, const std::byte* weight, int64_t row, Lines* next) {
  switch (rows) {
    case 1:
      return tile<S, 1>(p, block, weight, row, next);
    case 2:
      return tile<S, 2>(p, block, weight, row, next);
    case 3:
      return tile<S, 3>(p, block, weight, row, next);
    case 4:
      return tile<S, 4>(p, block, weight, row, next);
    case 5:
      if constexpr (kRows > 4) return tile<S, 5>(p, block, weight, row, next);
      break;
    default:
      if constexpr (kRows > 4) return tile<S, 6>(p, block, weight, row, next);
  }
}

// `follows`: whether the next block lies behind this one.
template <Store S>
void all_rows(const Product& p, int64_t block, const std::byte* weight, bool follows) {
  if constexpr (S == Store::kBf16 && kFloatRows)
    if (p.rows > kRows) return panels<Bf16, false>(p, block, weight);
  if constexpr (S == Store::kFloat) {
    if (p.rows >= kLongPanelsFrom) return panels<float, true>(p, block, weight);
    if (p.rows > kRows) return panels<float, false>(p, block, weight);
  }
  int64_t parts = (p.rows + kRows - 1) / kRows;
  // A block that several tiles use waits for memory once: the last of them ask for the next one meanwhile. (Panels ask
  // for themselves, so that this is for bfloat16 where a unit multiplies it.)
  constexpr int64_t kInput = kBlock * 4, kAsking = 4;  // bytes of two inputs; most tiles that ask
  const int64_t asking = parts > 1 && follows ? smaller(parts, kAsking) : 0;
  Lines next{weight + block_bytes(S, p.in + p.in2), asking > 0 ? (kInput / asking + 63) / 64 * 64 : 0};
  for (int64_t row = 0, rows; row < p.rows; row += rows, --parts) {
    rows = (p.rows - row + parts - 1) / parts;  // even tiles: 8 rows are 4 + 4, not 6 + 2
    tile<S>(rows, p, block, weight, row, parts <= asking ? &next : nullptr);
  }
}

inline void product(const Product& p, int64_t begin, int64_t end, std::byte* scratch) {
  const int64_t in = padded_inputs(p.store, p.in), bytes = block_bytes(p.store, p.in + p.in2);
  Product q = p;
  q.in = in;
  for (int64_t block = begin; block < end; ++block) {
    const std::byte* weight = p.weight + block * bytes;
    switch (p.store) {
      case Store::kFloat:
        all_rows<Store::kFloat>(q, block, weight, true);
        break;
      case Store::kBf16:
        all_rows<Store::kBf16>(q, block, weight, true);
        break;
      default:
        if (p.codes == nullptr) {
          dequantise(p.store, weight, in, reinterpret_cast<Bf16*>(scratch));
          all_rows<Store::kBf16>(q, block, scratch, false);
        } else if (p.store == Store::kInt8) {
          code_rows<Store::kInt8>(q, block, weight);
        } else {
          code_rows<Store::kInt4>(q, block, weight);
        }
    }
  }
}

}  // namespace c2c::C2C_ISA

#endif
