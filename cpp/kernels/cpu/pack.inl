// Packing of weights, and of a cache's rows for blocked attention.
#ifdef KERNEL

// Packs `count` (≤ 64) rows of [·, in] floats or bf16 as outputs [lane, lane + count) of a block; the block was zeroed
// before. `begin`: the first input that these rows fill.
KERNEL(pack, Store, std::byte* block, int64_t block_in, const void* rows, bool bf16, int64_t stride, int64_t count,
       int64_t lane, int64_t in, int64_t begin)
// Packs rows [begin, end) of one KV head for attend_tile; begin is a multiple of 64, end too unless it is the last row.
KERNEL(pack_keys, bool bf16, const void* keys, int64_t stride, int64_t rows, int64_t dim, std::byte* block)
KERNEL(pack_values, bool bf16, const void* values, int64_t stride, int64_t rows, int64_t dim, int64_t seen,
       int64_t first, std::byte* packed)

#else

namespace c2c::C2C_ISA {

// out[c · width + r] = in[r][c] for 32-bit items, a corner that stays in the cache at a time.
inline void transpose32(const std::byte* in, int64_t stride_bytes, int64_t rows, int64_t columns, std::byte* out,
                        int64_t width) {
  for (int64_t c0 = 0; c0 < columns; c0 += 16) {
    const int64_t c1 = smaller(c0 + 16, columns);
    for (int64_t r0 = 0; r0 < rows; r0 += 16) {
      const int64_t r1 = smaller(r0 + 16, rows);
#if defined(__AVX512F__)
      if (r1 - r0 == 16 && c1 - c0 == 16) {
        __m512i line[16];
        const __m512i step = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                                _mm512_set1_epi32(16));
        alignas(64) uint32_t corner[256];
#pragma GCC unroll 16
        for (int64_t r = 0; r < 16; ++r) {
          line[r] = read<__m512i>(in + (r0 + r) * stride_bytes + c0 * 4);
          _mm512_store_si512(corner + r * 16, line[r]);
        }
#pragma GCC unroll 16
        for (int64_t c = 0; c < 16; ++c)
          write(out + ((c0 + c) * width + r0) * 4, _mm512_i32gather_epi32(step, corner + c, 4));
        continue;
      }
#endif
      for (int64_t c = c0; c < c1; ++c)
        for (int64_t r = r0; r < r1; ++r)
          write(out + (c * width + r) * 4, read<uint32_t>(in + r * stride_bytes + c * 4));
    }
  }
}

C2C_INLINE float at_index(const void* row, bool bf16, int64_t i) {
  return bf16 ? wide(static_cast<const Bf16*>(row)[i]) : static_cast<const float*>(row)[i];
}

C2C_INLINE float rounded(float x) { return x + 12582912.0F - 12582912.0F; }
C2C_INLINE float clamped(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

// One group of one output: the scale that is stored, and 32 whole numbers.
inline float quantise8(const float* x, float* out) {
  float top = 0;
  for (int64_t i = 0; i < kGroup; ++i) top = larger(top, x[i] < 0 ? -x[i] : x[i]);
  const float scale = wide(to_bf16(top / 127.0F));
  const float inverse = scale > 0 ? 1.0F / scale : 0.0F;
  for (int64_t i = 0; i < kGroup; ++i) out[i] = clamped(rounded(x[i] * inverse), -127, 127);
  return scale;
}

// Four bits: -8 belongs to the value of largest magnitude; of a few scales near that, the one of least squared error.
inline float quantise4(const float* x, float* out) {
  float top = 0;
  for (int64_t i = 0; i < kGroup; ++i)
    if ((x[i] < 0 ? -x[i] : x[i]) > (top < 0 ? -top : top)) top = x[i];
  float best = 0, least = -1;
  constexpr float kDivisors[] = {-8.0F, -7.4F, -8.8F, -6.8F};
  for (const float divisor : kDivisors) {
    const float scale = wide(to_bf16(top / divisor)), inverse = scale != 0 ? 1.0F / scale : 0.0F;
    float error = 0;
    for (int64_t i = 0; i < kGroup; ++i) {
      const float miss = x[i] - scale * clamped(rounded(x[i] * inverse), -8, 7);
      error += miss * miss;
    }
    if (least < 0 || error < least) {
      least = error;
      best = scale;
    }
  }
  const float inverse = best != 0 ? 1.0F / best : 0.0F;
  for (int64_t i = 0; i < kGroup; ++i) out[i] = clamped(rounded(x[i] * inverse), -8, 7);
  return best;
}

inline void pack_group(Store store, std::byte* group, int64_t lane, const float* x) {
  float values[kGroup];
  const float scale = store == Store::kInt8 ? quantise8(x, values) : quantise4(x, values);
  reinterpret_cast<Bf16*>(group)[lane] = to_bf16(scale);
  group += kBlock * 2;
  const bool eight = store == Store::kInt8;
  for (int64_t k = 0; k < kGroup; k += eight ? 4 : 8) {
    uint32_t word = 0;
    for (int64_t i = 0; i < 4; ++i) {
      const auto at = [&](int64_t n) {
        const int32_t value = static_cast<int32_t>(values[n]);
        return eight ? static_cast<uint32_t>(value + 128) & 255U : static_cast<uint32_t>(value + 8) & 15U;
      };
      word |= (eight ? at(k + i) : at(k + i) | at(k + 4 + i) << 4) << (8 * i);
    }
    write(group + (k / (eight ? 4 : 8) * kBlock + lane) * 4, word);
  }
}

inline void pack(Store store, std::byte* block, int64_t block_in, const void* rows, bool bf16, int64_t stride,
                 int64_t count, int64_t lane, int64_t in, int64_t begin) {
  const int64_t item = bf16 ? 2 : 4;
  const auto* source = static_cast<const std::byte*>(rows);
  if (store == Store::kFloat && !bf16)
    return transpose32(source, stride * 4, count, in, block + (begin * kBlock + lane) * 4, kBlock);
  if (store == Store::kBf16 && bf16 && begin % 2 == 0) {
    transpose32(source, stride * 2, count, in / 2, block + (begin * kBlock + lane * 2) * 2, kBlock);
    if (in % 2 == 1)
      for (int64_t r = 0; r < count; ++r)
        write(block + ((begin + in - 1) * kBlock + (lane + r) * 2) * 2, read<Bf16>(source + (r * stride + in - 1) * 2));
    return;
  }
  const int64_t bytes = kGroup * kBlock / (store == Store::kInt4 ? 2 : 1) + kBlock * 2;
  for (int64_t r = 0; r < count; ++r, source += stride * item) {
    for (int64_t k = 0; k < in; k += kGroup) {
      float x[kGroup]{};
      for (int64_t i = 0; i < kGroup && k + i < in; ++i) x[i] = at_index(source, bf16, k + i);
      if (store == Store::kInt8 || store == Store::kInt4) {
        pack_group(store, block + (begin + k) / kGroup * bytes, lane + r, x);
        continue;
      }
      for (int64_t i = 0; i < kGroup && k + i < in; ++i) {
        const int64_t at = begin + k + i;
        if (store == Store::kFloat) {
          write(block + (at * kBlock + lane + r) * 4, x[i]);
        } else {
          write(block + (at / 2 * kBlock * 2 + (lane + r) * 2 + at % 2) * 2, to_bf16(x[i]));
        }
      }
    }
  }
}

// Up to 64 rows of one KV head as a block whose outputs are the rows; the lanes behind the last row are zeroed.
inline void pack_keys(bool bf16, const void* keys, int64_t stride, int64_t rows, int64_t dim, std::byte* block) {
  const Store kind = bf16 ? Store::kBf16 : Store::kFloat;
  if (rows < kBlock || dim % 2 == 1) __builtin_memset(block, 0, static_cast<size_t>(block_bytes(kind, dim)));
  pack(kind, block, dim, keys, bf16, stride, rows, 0, dim, 0);
}

// Rows `first` … of one KV head as inputs of blocks whose outputs are the head's dimensions.
inline void pack_values(bool bf16, const void* values, int64_t stride, int64_t rows, int64_t dim, int64_t seen,
                        int64_t first, std::byte* packed) {
  const int64_t bytes = block_bytes(bf16 ? Store::kBf16 : Store::kFloat, seen);
  for (int64_t d0 = 0; d0 < dim; d0 += kBlock, packed += bytes) {
    const int64_t count = smaller(dim - d0, kBlock);
    if (!bf16) {
      for (int64_t r = 0; r < rows; ++r) {
        float* out = reinterpret_cast<float*>(packed) + (first + r) * kBlock;
        __builtin_memcpy(out, static_cast<const float*>(values) + r * stride + d0, static_cast<size_t>(count) * 4);
        __builtin_memset(out + count, 0, static_cast<size_t>(kBlock - count) * 4);
      }
      continue;
    }
    const auto* in = static_cast<const Bf16*>(values) + d0;
    for (int64_t r = 0; r < rows; r += 2) {
      Bf16* out = reinterpret_cast<Bf16*>(packed) + (first + r) * kBlock;
      const Bf16 *even = in + r * stride, *odd = even + (r + 1 < rows ? stride : 0);
      int64_t d = 0;
      for (; d + kLanes <= count; d += kLanes) {
        const Bits a = __builtin_convertvector(read<Halves>(even + d), Bits);
        const Bits b = r + 1 < rows ? __builtin_convertvector(read<Halves>(odd + d), Bits) << 16 : Bits{};
        write(out + d * 2, a | b);
      }
      for (; d < kBlock; ++d) {
        out[d * 2] = d < count ? even[d] : Bf16{0};
        out[d * 2 + 1] = d < count && r + 1 < rows ? odd[d] : Bf16{0};
      }
    }
  }
}

}  // namespace c2c::C2C_ISA

#endif
