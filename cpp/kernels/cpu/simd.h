// Vectors of one instruction set, as the compiler's own vector types. Included with C2C_ISA set to the namespace: each
// instruction set has its own copy of everything, and nothing here or in the .inl files may call an inline function of
// the standard library (the linker would keep one copy, perhaps the one that this machine cannot run).
#include <cstdint>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "kernels/kernels.h"

#define C2C_INLINE inline __attribute__((always_inline))

namespace c2c::C2C_ISA {

#if defined(__AVX512F__)
constexpr int64_t kLanes = 16, kVectors = 4, kRows = 6;  // a register tile: kRows rows × kVectors vectors
#elif defined(__AVX__)
constexpr int64_t kLanes = 8, kVectors = 2, kRows = 4;
#else
constexpr int64_t kLanes = 4, kVectors = 4, kRows = 4;
#endif
constexpr int64_t kTile = kLanes * kVectors;

// Whether many rows of bf16 are multiplied as floats: where no unit multiplies bf16, or floats are faster.
#if defined(__AVX512BF16__) && !defined(C2C_FLOAT_ROWS)
constexpr bool kFloatRows = false;
#else
constexpr bool kFloatRows = true;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Bits __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));

template <class T>
C2C_INLINE T read(const void* p) {
  T v;
  __builtin_memcpy(&v, p, sizeof(T));
  return v;
}
template <class T>
C2C_INLINE void write(void* p, T v) {
  __builtin_memcpy(p, &v, sizeof(T));
}

C2C_INLINE Vec spread(float x) { return x - Vec{}; }  // not x + 0, which is another number for -0 and so an addition
C2C_INLINE float wide(Bf16 x) { return __builtin_bit_cast(float, uint32_t{x.bits} << 16); }
C2C_INLINE float wide(float x) { return x; }
// To nearest, ties to even.
C2C_INLINE Bf16 to_bf16(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  if (x != x) return {0x7fc0};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
C2C_INLINE void put(float* p, float x) { *p = x; }
C2C_INLINE void put(Bf16* p, float x) { *p = to_bf16(x); }

C2C_INLINE Vec load(const float* p) { return read<Vec>(p); }
C2C_INLINE Vec load(const Bf16* p) { return (Vec)(__builtin_convertvector(read<Halves>(p), Bits) << 16); }
C2C_INLINE void store(float* p, Vec v) { write(p, v); }
C2C_INLINE void store(Bf16* p, Vec v) {
#if defined(__AVX512BF16__)
  write(p, (__m256i)_mm512_cvtneps_pbh((__m512)v));
#else
  const Bits bits = (Bits)v;
  const Bits nan = (Bits)(v != v);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  write(p, __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0), Halves));
#endif
}

// Two vectors rounded to bf16, a's in the low halves and b's in the high ones.
C2C_INLINE Bits pairs(Vec a, Vec b) {
  const Bits low = (Bits)a, high = (Bits)b;
  return ((low + 0x7fff + ((low >> 16) & 1)) >> 16) | ((high + 0x7fff + ((high >> 16) & 1)) & 0xffff0000U);
}

C2C_INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }
C2C_INLINE float larger(float a, float b) { return a > b ? a : b; }
C2C_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Two neighbouring bf16 inputs of a row, one in each half.
C2C_INLINE uint32_t pair(const Bf16* x) { return read<uint32_t>(x); }

// Weights come from memory in one stream: they are asked for this many bytes ahead, further than hardware dares.
constexpr int64_t kAhead = 8192;
template <int64_t kBytes>
C2C_INLINE void prefetch(const std::byte* w) {
#pragma GCC unroll 4
  for (int64_t b = 0; b < kBytes; b += 64) __builtin_prefetch(w + kAhead + b);
}

// Asks for memory a little ahead of its use, the same few lines in each step of the work: asked for in bursts, they
// would hold it up. They are brought into the second-level cache: far more of them can be on their way to it than to
// the first, whose sets are few besides.
struct Lines {
  const std::byte* at;
  int64_t step;  // bytes with each step

  C2C_INLINE void ask() {
    for (int64_t b = 0; b < step; b += 64) __builtin_prefetch(at + b, 0, 2);
    at += step;
  }
};

template <int... I>
struct Lanes {};
#if defined(__AVX512F__)
using AllLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
#elif defined(__AVX__)
using AllLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7>;
#else
using AllLanes = Lanes<0, 1, 2, 3>;
#endif
// Lanes that are D apart side by side, to be joined: a's where a lane's bit D is clear, else b's.
template <int64_t D, int... I>
C2C_INLINE Vec near(Vec a, Vec b, Lanes<I...>) {
  return __builtin_shufflevector(a, b, (I & D ? kLanes + I : I)...);
}
template <int64_t D, int... I>
C2C_INLINE Vec far(Vec a, Vec b, Lanes<I...>) {
  return __builtin_shufflevector(a, b, (I & D ? kLanes + (I ^ D) : I ^ D)...);
}

// 2 · kLanes values as two vectors: of float one half after the other, of bf16 every other one, which takes no
// shuffles.
C2C_INLINE void load_two(const float* p, Vec* x) {
  x[0] = load(p);
  x[1] = load(p + kLanes);
}
C2C_INLINE void load_two(const Bf16* p, Vec* x) {
  const Bits both = read<Bits>(p);
  x[0] = (Vec)(both << 16);
  x[1] = (Vec)(both & 0xffff0000U);
}
// The two halves that load_two makes of bf16 values, in the values' own order.
template <int... I>
C2C_INLINE void store_two(float* p, Vec even, Vec odd, Lanes<I...>) {
  store(p, __builtin_shufflevector(even, odd, (I / 2 + (I % 2 ? kLanes : 0))...));
  store(p + kLanes, __builtin_shufflevector(even, odd, ((kLanes + I) / 2 + (I % 2 ? kLanes : 0))...));
}

C2C_INLINE float sum(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float total = 0;
  for (int64_t i = 0; i < kLanes; ++i) total += v[i];
  return total;
#endif
}
C2C_INLINE float largest(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  float top = v[0];
  for (int64_t i = 1; i < kLanes; ++i) top = larger(top, v[i]);
  return top;
#endif
}

// Lane r of the result is the sum of s[r]'s lanes: vectors are joined two by two, each time at half the distance.
template <int64_t D = kLanes / 2>
C2C_INLINE Vec sums(Vec* s) {
  if constexpr (D == 0) {
    return s[0];
  } else {
#pragma GCC unroll 8
    for (int64_t r = 0; r < D; ++r) s[r] = near<D>(s[r], s[r + D], AllLanes{}) + far<D>(s[r], s[r + D], AllLanes{});
    return sums<D / 2>(s);
  }
}

// To the nearest whole number, for |x| below 2^22.
C2C_INLINE Vec whole(Vec x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const Vec magic = spread(12582912.0F);  // 1.5 · 2^23
  return x + magic - magic;
#endif
}
// p · 2^n for a whole n in [-126, 127] where x is at least `low` or no number, 0 elsewhere.
C2C_INLINE Vec scaled(Vec p, Vec n, Vec x, float low) {
#if defined(__AVX512F__)
  const __mmask16 kept = _mm512_cmp_ps_mask((__m512)x, (__m512)spread(low), _CMP_NLT_UQ);
  return (Vec)_mm512_maskz_scalef_ps(kept, (__m512)p, (__m512)n);
#else
  const Vec result = p * (Vec)((__builtin_convertvector(n, Ints) + 127) << 23);
  return x < spread(low) ? Vec{} : result;
#endif
}
// x, but at most `high`; what is no number stays so.
C2C_INLINE Vec at_most(float high, Vec x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_min_ps((__m512)spread(high), (__m512)x);
#else
  return x > spread(high) ? spread(high) : x;
#endif
}

// e^x to 2 ulp for x in [-87.3, 88.3]; 0 below, the last above.
C2C_INLINE Vec exp(Vec x) {
  const Vec y = at_most(88.3F, x);
  const Vec n = whole(y * 1.44269504F);
  Vec r = y - n * 0.693359375F;
  r = r + n * 2.12194440e-4F;
  Vec p = spread(1.9875691500e-4F);
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  return scaled(p, n, x, -87.3F);
}

// 2^x to 2 ulp for x in [-126, 0], 0 below: the polynomial of degree 5 that is off by at most 7.5e-8 on [-1/2, 1/2].
C2C_INLINE Vec fraction_of_one(Vec x) {
  const Vec n = whole(x), f = x - n;
  Vec p = spread(1.327647217e-3F);
  p = p * f + 9.675541331e-3F;
  p = p * f + 5.550713273e-2F;
  p = p * f + 2.402211972e-1F;
  p = p * f + 6.931469671e-1F;
  p = p * f + 1.000000072F;
  return scaled(p, n, x, -126.0F);
}

C2C_INLINE Vec silu(Vec x) { return x / (1.0F + exp(-x)); }
C2C_INLINE Vec tanh(Vec x) {
  const Vec e = exp(-2.0F * (x < 0.0F ? -x : x));
  const Vec t = (1.0F - e) / (1.0F + e);
  return x < 0.0F ? -t : t;
}
C2C_INLINE Vec gelu_tanh(Vec x) { return 0.5F * x * (1.0F + tanh(0.7978845608F * (x + 0.044715F * x * x * x))); }
// x · Φ(x); the error function by Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
C2C_INLINE Vec gelu(Vec x) {
  const Vec z = (x < 0.0F ? -x : x) * 0.70710678118F;
  const Vec t = 1.0F / (1.0F + 0.3275911F * z);
  const Vec p = t * (0.254829592F + t * (-0.284496736F + t * (1.421413741F + t * (-1.453152027F + t * 1.061405429F))));
  const Vec e = 1.0F - p * exp(-z * z);
  return 0.5F * x * (1.0F + (x < 0.0F ? -e : e));
}

}  // namespace c2c::C2C_ISA
