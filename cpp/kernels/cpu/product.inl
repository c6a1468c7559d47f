// Products of rows with packed weights: one register tile of up to kRows rows × kBlock outputs, for one row and for
// many. Many rows go through panels where these are faster.
#ifdef KERNEL

// Blocks [begin, end) of a product; `scratch`: product_scratch() bytes of the calling thread.
KERNEL(product, const Product&, int64_t begin, int64_t end, std::byte* scratch)

#else

namespace c2c::C2C_ISA {

template <int64_t R>
using Sums = Vec[R][kVectors];

// Two neighbouring bf16 inputs of a row, one in each half.
C2C_INLINE uint32_t pair(const Bf16* x) { return read<uint32_t>(x); }
C2C_INLINE Vec low(uint32_t two) { return spread(__builtin_bit_cast(float, two << 16)); }
C2C_INLINE Vec high(uint32_t two) { return spread(__builtin_bit_cast(float, two & 0xffff0000U)); }

// Weights come from memory in one stream: they are asked for this many bytes ahead, further than hardware dares.
constexpr int64_t kAhead = 8192;
template <int64_t kBytes>
C2C_INLINE void prefetch(const std::byte* w) {
#pragma GCC unroll 4
  for (int64_t b = 0; b < kBytes; b += 64) __builtin_prefetch(w + kAhead + b);
}

template <int64_t R>
C2C_INLINE void dot_float(Sums<R>& sums, const float* x, int64_t stride, const std::byte* w, int64_t in) {
  for (int64_t k = 0; k < in; ++k, w += kBlock * 4) {
    prefetch<kTile * 4>(w);
    Vec b[kVectors];
#pragma GCC unroll 4
    for (int64_t v = 0; v < kVectors; ++v) b[v] = read<Vec>(w + v * sizeof(Vec));
#pragma GCC unroll 6
    for (int64_t r = 0; r < R; ++r) {
      const Vec a = spread(x[r * stride + k]);
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) sums[r][v] += a * b[v];
    }
  }
}

template <int64_t R>
C2C_INLINE void dot_bf16(Sums<R>& sums, const Bf16* x, int64_t stride, const std::byte* w, int64_t in) {
  for (int64_t k = 0; k < in; k += 2, w += kBlock * 4) {
    prefetch<kTile * 4>(w);
#if defined(__AVX512BF16__)
    __m512bh b[kVectors];
#pragma GCC unroll 4
    for (int64_t v = 0; v < kVectors; ++v) b[v] = read<__m512bh>(w + v * 64);
#pragma GCC unroll 6
    for (int64_t r = 0; r < R; ++r) {
      const auto a = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair(x + r * stride + k)));
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) sums[r][v] = (Vec)_mm512_dpbf16_ps((__m512)sums[r][v], a, b[v]);
    }
#else
    Vec even[kVectors], odd[kVectors];
#pragma GCC unroll 4
    for (int64_t v = 0; v < kVectors; ++v) {
      const auto two = read<Bits>(w + v * sizeof(Vec));
      even[v] = (Vec)(two << 16);
      odd[v] = (Vec)(two & 0xffff0000U);
    }
#pragma GCC unroll 6
    for (int64_t r = 0; r < R; ++r) {
      const uint32_t two = pair(x + r * stride + k);
      const Vec a = low(two), c = high(two);
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) sums[r][v] += a * even[v];
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) sums[r][v] += c * odd[v];
    }
#endif
  }
}

// Adds a group's sums, scaled. Scales of all kBlock outputs lie before the group's values.
template <int64_t R>
C2C_INLINE void add_group(Sums<R>& sums, const Sums<R>& group, const std::byte* scales) {
#pragma GCC unroll 4
  for (int64_t v = 0; v < kVectors; ++v) {
    const Vec scale = load(reinterpret_cast<const Bf16*>(scales) + v * kLanes);
#pragma GCC unroll 6
    for (int64_t r = 0; r < R; ++r) sums[r][v] += group[r][v] * scale;
  }
}

// Int8: a group is [32 inputs][64 outputs]. `column`: the first output of this tile.
template <int64_t R>
C2C_INLINE void dot_int8(Sums<R>& sums, const Bf16* x, int64_t stride, const std::byte* w, int64_t in, int64_t column) {
  for (int64_t g = 0; g < in; g += kGroup) {
    const std::byte* scales = w + column * 2;
    w += kBlock * 2;
    Sums<R> first{}, second{};
    for (int64_t k = 0; k < kGroup; k += 2, w += kBlock * 2) {
      prefetch<kBlock * 2>(w);
      Vec even[kVectors], odd[kVectors];
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) {
        even[v] = load(reinterpret_cast<const int8_t*>(w) + column + v * kLanes);
        odd[v] = load(reinterpret_cast<const int8_t*>(w) + kBlock + column + v * kLanes);
      }
#pragma GCC unroll 6
      for (int64_t r = 0; r < R; ++r) {
        const uint32_t two = pair(x + r * stride + g + k);
        const Vec a = low(two), c = high(two);
#pragma GCC unroll 4
        for (int64_t v = 0; v < kVectors; ++v) {
          first[r][v] += a * even[v];
          second[r][v] += c * odd[v];
        }
      }
    }
    for (int64_t r = 0; r < R; ++r)
      for (int64_t v = 0; v < kVectors; ++v) first[r][v] += second[r][v];
    add_group<R>(sums, first, scales);
  }
}

#if defined(__AVX512BF16__)
// The bf16 of -8 … 7; twice, so that the fifth bit of an index does not matter.
alignas(64) constexpr uint16_t kNibbles[32] = {0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,
                                               0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
                                               0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,
                                               0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
#endif

// Int4: a group is [4][64 outputs] words of 32 bits; word c of an output holds inputs 8c … 8c + 7, of which the even
// ones lie in the low half (the first lowest) and the odd ones in the high half, each as value + 8.
template <int64_t R>
C2C_INLINE void dot_int4(Sums<R>& sums, const Bf16* x, int64_t stride, const std::byte* w, int64_t in, int64_t column) {
#if defined(__AVX512BF16__)
  const __m512i table = _mm512_load_si512(kNibbles);
#endif
  for (int64_t g = 0; g < in; g += kGroup) {
    const std::byte* scales = w + column * 2;
    w += kBlock * 2;
    Sums<R> group{};
    for (int64_t k = 0; k < kGroup; k += 8, w += kBlock * 4) {
      prefetch<kTile * 4>(w + column * 4);
#if defined(__AVX512BF16__)
      __m512i words[kVectors];
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) words[v] = read<__m512i>(w + column * 4 + v * 64);
#pragma GCC unroll 4
      for (int64_t i = 0; i < 4; ++i) {
        __m512bh b[kVectors];
#pragma GCC unroll 4
        for (int64_t v = 0; v < kVectors; ++v)
          b[v] = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(words[v], static_cast<unsigned>(4 * i)), table);
#pragma GCC unroll 6
        for (int64_t r = 0; r < R; ++r) {
          const auto a = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair(x + r * stride + g + k + 2 * i)));
#pragma GCC unroll 4
          for (int64_t v = 0; v < kVectors; ++v) group[r][v] = (Vec)_mm512_dpbf16_ps((__m512)group[r][v], a, b[v]);
        }
      }
#else
      for (int64_t i = 0; i < 4; ++i) {
        Vec even[kVectors], odd[kVectors];
#pragma GCC unroll 4
        for (int64_t v = 0; v < kVectors; ++v) {
          const auto word = read<Bits>(w + (column + v * kLanes) * 4) >> static_cast<uint32_t>(4 * i);
          even[v] = __builtin_convertvector((Ints)(word & 15) - 8, Vec);
          odd[v] = __builtin_convertvector((Ints)((word >> 16) & 15) - 8, Vec);
        }
#pragma GCC unroll 6
        for (int64_t r = 0; r < R; ++r) {
          const uint32_t two = pair(x + r * stride + g + k + 2 * i);
          const Vec a = low(two), c = high(two);
#pragma GCC unroll 4
          for (int64_t v = 0; v < kVectors; ++v) group[r][v] += a * even[v] + c * odd[v];
        }
      }
#endif
    }
    add_group<R>(sums, group, scales);
  }
}

// A quantised block as a bf16 one.
inline void dequantise(Store store, const std::byte* w, int64_t in, Bf16* out) {
  for (int64_t g = 0; g < in; g += kGroup) {
    const auto* scales = reinterpret_cast<const Bf16*>(w);
    w += kBlock * 2;
    for (int64_t k = 0; k < kGroup; k += 2, out += kBlock * 2) {
      for (int64_t c = 0; c < kBlock; c += kLanes) {
        Vec even, odd;
        if (store == Store::kInt8) {
          const auto* values = reinterpret_cast<const int8_t*>(w) + k * kBlock + c;
          even = load(values);
          odd = load(values + kBlock);
        } else {
          const auto word = read<Bits>(w + (k / 8 * kBlock + c) * 4) >> static_cast<uint32_t>(k % 8 * 2);
          even = __builtin_convertvector((Ints)(word & 15) - 8, Vec);
          odd = __builtin_convertvector((Ints)((word >> 16) & 15) - 8, Vec);
        }
        const Vec scale = load(scales + c);
        write(out + c * 2, pairs(even * scale, odd * scale));
      }
    }
    w += store == Store::kInt8 ? kGroup * kBlock : kGroup * kBlock / 2;
  }
}

template <Store S, int64_t R>
void tile(const Product& p, int64_t block, const std::byte* weight, int64_t row) {
  using T = std::conditional_t<S == Store::kFloat, float, Bf16>;
  alignas(64) float out[R * kBlock];
  const T* x = static_cast<const T*>(p.x) + row * p.x_stride;
  for (int64_t column = 0; column < kBlock; column += kTile) {
    Sums<R> sums;
#pragma GCC unroll 4
    for (int64_t v = 0; v < kVectors; ++v) {
      const Vec start = p.bias ? load(p.bias + block * kBlock + column + v * kLanes) : Vec{};
#pragma GCC unroll 6
      for (int64_t r = 0; r < R; ++r) sums[r][v] = start;
    }
    if constexpr (S == Store::kFloat) {
      dot_float<R>(sums, x, p.x_stride, weight + column * 4, p.in);
      if (p.in2 > 0)
        dot_float<R>(sums, static_cast<const float*>(p.x2) + row * p.x2_stride, p.x2_stride,
                     weight + (p.in * kBlock + column) * 4, p.in2);
    } else if constexpr (S == Store::kBf16) {
      dot_bf16<R>(sums, x, p.x_stride, weight + column * 4, p.in);
      if (p.in2 > 0)
        dot_bf16<R>(sums, static_cast<const Bf16*>(p.x2) + row * p.x2_stride, p.x2_stride,
                    weight + p.in * kBlock * 2 + column * 4, p.in2);
    } else if constexpr (S == Store::kInt8) {
      dot_int8<R>(sums, x, p.x_stride, weight, p.in, column);
    } else {
      dot_int4<R>(sums, x, p.x_stride, weight, p.in, column);
    }
#pragma GCC unroll 6
    for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) store(out + r * kBlock + column + v * kLanes, sums[r][v]);
  }
  finish<T>(p, block, row, R, out);
}

template <Store S>
void all_rows(const Product& p, int64_t block, const std::byte* weight) {
  if constexpr (S == Store::kBf16 && kFloatRows)
    if (p.rows > kRows) return panels<Bf16>(p, block, weight);
  if constexpr (S == Store::kFloat)
    if (p.rows > kRows) return panels<float>(p, block, weight);
  int64_t parts = (p.rows + kRows - 1) / kRows;
  for (int64_t row = 0, rows; row < p.rows; row += rows, --parts) {
    rows = (p.rows - row + parts - 1) / parts;  // even tiles: 8 rows are 4 + 4, not 6 + 2
    switch (rows) {
      case 1:
        tile<S, 1>(p, block, weight, row);
        break;
      case 2:
        tile<S, 2>(p, block, weight, row);
        break;
      case 3:
        tile<S, 3>(p, block, weight, row);
        break;
      case 4:
        tile<S, 4>(p, block, weight, row);
        break;
      case 5:
        if constexpr (kRows > 4) tile<S, 5>(p, block, weight, row);
        break;
      default:
        if constexpr (kRows > 4) tile<S, 6>(p, block, weight, row);
    }
  }
}

// Rows up to which quantised weights are used as they are; for more, a block is turned to bf16 once.
constexpr int64_t direct_rows(Store store) { return store == Store::kInt8 ? kRows : kFloatRows ? 2 * kRows : 64; }

inline void product(const Product& p, int64_t begin, int64_t end, std::byte* scratch) {
  const int64_t in = padded_inputs(p.store, p.in), bytes = block_bytes(p.store, p.in + p.in2);
  Product q = p;
  q.in = in;
  for (int64_t block = begin; block < end; ++block) {
    const std::byte* weight = p.weight + block * bytes;
    switch (p.store) {
      case Store::kFloat:
        all_rows<Store::kFloat>(q, block, weight);
        break;
      case Store::kBf16:
        all_rows<Store::kBf16>(q, block, weight);
        break;
      default:
        if (p.rows > direct_rows(p.store)) {
          dequantise(p.store, weight, in, reinterpret_cast<Bf16*>(scratch));
          all_rows<Store::kBf16>(q, block, scratch);
        } else if (p.store == Store::kInt8) {
          all_rows<Store::kInt8>(q, block, weight);
        } else {
          all_rows<Store::kInt4>(q, block, weight);
        }
    }
  }
}

}  // namespace c2c::C2C_ISA

#endif
