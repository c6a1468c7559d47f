// Products of a few rows with quantised weights in whole numbers: rows are written as numbers of 16 bits, finer than
// bfloat16, and weights are multiplied as they are stored. Weights lie as value + 128 (int8) or + 8 (int4), since units
// multiply unsigned numbers with signed ones; what that adds is the rows' sum many times over, and is taken off at the
// start. A group is scales of all kBlock outputs in bf16, then words of four bytes for each output:
//   int8: [8][kBlock], word q has inputs 4q … 4q + 3
//   int4: [4][kBlock], word c has inputs 8c … 8c + 3 in the low halves of its bytes, 8c + 4 … 8c + 7 in the high ones
#ifdef KERNEL

// Writes rows of n values, whole groups of them, as the instruction set's codes, one row behind the other.
KERNEL(encode, const Bf16* x, int64_t stride, int64_t rows, int64_t n, RowCodes* out)

#else

namespace c2c::C2C_ISA {

constexpr int64_t kQuads = kGroup / 4;
constexpr int64_t kCodeTile = kLanes == 16 ? 3 : 2;  // rows of a register tile
constexpr int64_t kMostCode = 127 * 256;             // both bytes of a code fit into a signed one

// What four weights of each output are multiplied as, and the sums of both words of a row's codes.
struct FourWeights {
  Bits even, odd;
};
struct CodeSums {
  Ints first, second;
};

#if defined(__AVX512VNNI__)
// Words: the high bytes of four codes, and the low ones, both signed.
C2C_INLINE FourWeights split(Bits w) { return {w, w}; }
C2C_INLINE void add(CodeSums& s, FourWeights w, uint32_t a, uint32_t b) {
  s.first = (Ints)_mm512_dpbusd_epi32((__m512i)s.first, (__m512i)w.even, _mm512_set1_epi32(static_cast<int>(a)));
  s.second = (Ints)_mm512_dpbusd_epi32((__m512i)s.second, (__m512i)w.even, _mm512_set1_epi32(static_cast<int>(b)));
}
C2C_INLINE Ints joined(CodeSums s) { return (s.first << 8) + s.second; }
#else
// Words: codes 0 and 2 of four, and codes 1 and 3.
C2C_INLINE FourWeights split(Bits w) { return {w & 0x00ff00ffU, (w >> 8) & 0x00ff00ffU}; }
C2C_INLINE Ints two_products(Bits w, uint32_t x) {
#if defined(__AVX512BW__)
  return (Ints)_mm512_madd_epi16((__m512i)w, _mm512_set1_epi32(static_cast<int>(x)));
#elif defined(__AVX2__)
  return (Ints)_mm256_madd_epi16((__m256i)w, _mm256_set1_epi32(static_cast<int>(x)));
#else
  const auto low = static_cast<int32_t>(static_cast<int16_t>(x & 0xffffU)), high = static_cast<int32_t>(x) >> 16;
  return (Ints)(w & 0xffffU) * low + (Ints)(w >> 16) * high;
#endif
}
C2C_INLINE void add(CodeSums& s, FourWeights w, uint32_t a, uint32_t b) {
  s.first += two_products(w.even, a);
  s.second += two_products(w.odd, b);
}
C2C_INLINE Ints joined(CodeSums s) { return s.first + s.second; }
#endif

C2C_INLINE void write_words(const int32_t* codes, uint32_t* words) {
#if defined(__AVX512VNNI__)
  for (int64_t i = 0; i < kGroup; i += kLanes) {
    const Ints x = read<Ints>(codes + i), high = (x + 128) >> 8;
    write(words + i / 4, _mm512_cvtepi32_epi8((__m512i)high));
    write(words + kQuads + i / 4, _mm512_cvtepi32_epi8((__m512i)(x - (high << 8))));
  }
#else
  for (int64_t q = 0; q < kQuads; ++q, codes += 4) {
    words[q] = (static_cast<uint32_t>(codes[0]) & 0xffffU) | static_cast<uint32_t>(codes[2]) << 16;
    words[kQuads + q] = (static_cast<uint32_t>(codes[1]) & 0xffffU) | static_cast<uint32_t>(codes[3]) << 16;
  }
#endif
}

inline void encode_row(const Bf16* x, int64_t n, RowCodes* out) {
  const Vec magic = spread(12582912.0F);  // 1.5 · 2^23: adding it rounds to an integer
  for (int64_t g = 0; g < n; g += kGroup, ++out) {
    // Magnitudes in the order of their bits, where NaN is above all numbers.
    Bits most{};
    for (int64_t i = 0; i < kGroup; i += kLanes) {
      const Bits bits = (Bits)load(x + g + i) & 0x7fffffffU;
      most = bits > most ? bits : most;
    }
    uint32_t high = 0;
    for (int64_t l = 0; l < kLanes; ++l) high = most[l] > high ? most[l] : high;
    const float top = __builtin_bit_cast(float, high);
    const float scale = high < 0x7f800000U ? top / static_cast<float>(kMostCode) : __builtin_nanf("");
    // A group that is not finite makes all that it meets NaN by its scale; one too small for a scale is zero.
    const bool usable = high < 0x7f800000U && top > 1e-30F;
    const float inverse = usable ? static_cast<float>(kMostCode) / top : 0.0F;
    alignas(64) int32_t codes[kGroup];
    Ints total{};
    for (int64_t i = 0; i < kGroup; i += kLanes) {
      const Vec scaled = usable ? load(x + g + i) * inverse + magic - magic : Vec{};
      const Ints code = __builtin_convertvector(scaled, Ints);
      write(codes + i, code);
      total += code;
    }
    write_words(codes, out->words);
    out->sum = 0;
    for (int64_t l = 0; l < kLanes; ++l) out->sum += total[l];
    out->scale = scale;
  }
}

inline void encode(const Bf16* x, int64_t stride, int64_t rows, int64_t n, RowCodes* out) {
  for (int64_t r = 0; r < rows; ++r) encode_row(x + r * stride, n, out + r * (n / kGroup));
}

template <Store S, int64_t R>
void code_tile(const Product& p, int64_t block, const std::byte* weight, int64_t row) {
  constexpr int32_t kOffset = S == Store::kInt8 ? 128 : 8;
  constexpr int64_t kWords = S == Store::kInt8 ? kQuads : kQuads / 2, kBytes = kBlock * 4;
  alignas(64) float out[R * kBlock];
  const int64_t groups = p.in / kGroup;
  for (int64_t column = 0; column < kBlock; column += kTile) {
    Vec sums[R][kVectors];
#pragma GCC unroll 4
    for (int64_t v = 0; v < kVectors; ++v) {
      const Vec start = p.bias ? load(p.bias + block * kBlock + column + v * kLanes) : Vec{};
#pragma GCC unroll 3
      for (int64_t r = 0; r < R; ++r) sums[r][v] = start;
    }
    const RowCodes* codes = p.codes + row * groups;
    const std::byte* w = weight + column * 4;
    for (int64_t g = 0; g < groups; ++g, ++codes) {
      const std::byte* scales = w - column * 2;
      w += kBlock * 2;
      CodeSums s[R][kVectors];
#pragma GCC unroll 3
      for (int64_t r = 0; r < R; ++r) {
        const Ints start = Ints{} - kOffset * codes[r * groups].sum;
#pragma GCC unroll 4
        for (int64_t v = 0; v < kVectors; ++v) s[r][v] = {Ints{}, start};
      }
      for (int64_t c = 0; c < kWords; ++c, w += kBytes) {
        if (column == 0) prefetch<kBytes>(w);
#pragma GCC unroll 4
        for (int64_t v = 0; v < kVectors; ++v) {
          const auto words = read<Bits>(w + v * sizeof(Bits));
          if constexpr (S == Store::kInt8) {
            const FourWeights four = split(words);
#pragma GCC unroll 3
            for (int64_t r = 0; r < R; ++r)
              add(s[r][v], four, codes[r * groups].words[c], codes[r * groups].words[kQuads + c]);
          } else {
            const FourWeights low = split(words & 0x0f0f0f0fU), high = split((words >> 4) & 0x0f0f0f0fU);
#pragma GCC unroll 3
            for (int64_t r = 0; r < R; ++r) {
              const uint32_t* x = codes[r * groups].words + 2 * c;
              add(s[r][v], low, x[0], x[kQuads]);
              add(s[r][v], high, x[1], x[kQuads + 1]);
            }
          }
        }
      }
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) {
        const Vec scale = load(reinterpret_cast<const Bf16*>(scales) + v * kLanes);
#pragma GCC unroll 3
        for (int64_t r = 0; r < R; ++r)
          sums[r][v] += __builtin_convertvector(joined(s[r][v]), Vec) * (scale * codes[r * groups].scale);
      }
    }
#pragma GCC unroll 3
    for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) store(out + r * kBlock + column + v * kLanes, sums[r][v]);
  }
  finish<Bf16>(p, block, row, R, out);
}

template <Store S>
void code_rows(const Product& p, int64_t block, const std::byte* weight) {
  int64_t parts = (p.rows + kCodeTile - 1) / kCodeTile;
  for (int64_t row = 0, rows; row < p.rows; row += rows, --parts) {
    rows = (p.rows - row + parts - 1) / parts;  // even tiles: 4 rows are 2 + 2, not 3 + 1
    if (rows == 1) code_tile<S, 1>(p, block, weight, row);
    if (rows == 2) code_tile<S, 2>(p, block, weight, row);
    if constexpr (kCodeTile > 2)
      if (rows == 3) code_tile<S, 3>(p, block, weight, row);
  }
}

// A block as bf16, for many rows.
inline void dequantise(Store store, const std::byte* w, int64_t in, Bf16* out) {
  const int32_t offset = store == Store::kInt8 ? 128 : 8;
  for (int64_t g = 0; g < in; g += kGroup) {
    const auto* scales = reinterpret_cast<const Bf16*>(w);
    w += kBlock * 2;
    for (int64_t k = 0; k < kGroup; k += 2, out += kBlock * 2) {
      for (int64_t c = 0; c < kBlock; c += kLanes) {
        const int64_t word = store == Store::kInt8 ? k / 4 : k / 8;
        const Bits bits = read<Bits>(w + (word * kBlock + c) * 4) >>
                          static_cast<uint32_t>(k % 4 * 8 + (store == Store::kInt4 ? k / 4 % 2 * 4 : 0));
        const uint32_t mask = store == Store::kInt8 ? 255 : 15;
        const Vec even = __builtin_convertvector((Ints)(bits & mask) - offset, Vec);
        const Vec odd = __builtin_convertvector((Ints)((bits >> 8) & mask) - offset, Vec);
        const Vec scale = load(scales + c);
        write(out + c * 2, pairs(even * scale, odd * scale));
      }
    }
    w += store == Store::kInt8 ? kGroup * kBlock : kGroup * kBlock / 2;
  }
}

}  // namespace c2c::C2C_ISA

#endif
