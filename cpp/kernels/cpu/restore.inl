// Rows in 8 or 4 bits (see cache/quantized.h) turned back into numbers.
#ifdef KERNEL

// One row: out[i] = low + code · scale.
KERNEL(restore, const Restore&)

#else

namespace c2c::C2C_ISA {

C2C_INLINE Ints bytes_at(const uint8_t* p) {
#if defined(__AVX512F__)
  return (Ints)_mm512_cvtepu8_epi32(read<__m128i>(p));
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(read<int64_t>(p)));
#else
  typedef uint8_t Unsigned __attribute__((vector_size(kLanes)));
  return __builtin_convertvector(read<Unsigned>(p), Ints);
#endif
}

C2C_INLINE Vec rounded(Vec v) {
  const Bits bits = (Bits)v;
  return (Vec)((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000U);
}

template <int kBits, class T>
C2C_INLINE void restore_to(const Restore& r, T* out) {
  constexpr int64_t half = kCodeChannels / 2;
  for (int64_t first = 0; first < r.count; first += kCodeChannels) {
    const uint8_t* codes = r.codes + (kBits == 8 ? first : first / 2);
    const int64_t count = smaller(kCodeChannels, r.count - first), group = first / kCodeChannels;
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const Ints bytes = bytes_at(codes + (kBits == 8 ? i : i % half));
      const Ints code = kBits == 8 ? bytes : i < half ? bytes & 15 : bytes >> 4;
      const Vec low = r.grouped ? spread(wide(r.lows[group])) : load(r.lows + first + i);
      const Vec scale = r.grouped ? spread(wide(r.scales[group])) : load(r.scales + first + i);
      const Vec value = low + __builtin_convertvector(code, Vec) * scale;
      store(out + first + i, r.round ? rounded(value) : value);
    }
    for (; i < count; ++i) {
      const int byte = codes[kBits == 8 ? i : i % half], code = kBits == 8 ? byte : i < half ? byte & 15 : byte >> 4;
      const int64_t at = r.grouped ? group : first + i;
      const float value = wide(r.lows[at]) + static_cast<float>(code) * wide(r.scales[at]);
      put(out + first + i, r.round ? wide(to_bf16(value)) : value);
    }
  }
}

inline void restore(const Restore& r) {
  if (r.bf16) {
    auto* out = static_cast<Bf16*>(r.out);
    return r.bits == 8 ? restore_to<8>(r, out) : restore_to<4>(r, out);
  }
  auto* out = static_cast<float*>(r.out);
  return r.bits == 8 ? restore_to<8>(r, out) : restore_to<4>(r, out);
}

}  // namespace c2c::C2C_ISA

#endif
