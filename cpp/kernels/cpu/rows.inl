// Passes over rows: norms, rotary turns, conversions, the gated write, and packing.
#ifdef KERNEL

// out = x / rms(x) · weight over n values, and zeros up to `padded`; out in float or bf16.
KERNEL(norm, const float* x, const float* weight, double eps, int64_t n, int64_t padded, void* out, bool bf16)
// Turns a head of n values (norm first where `weight` is given), writes it as float or bf16.
KERNEL(turn, const float* x, const float* weight, double eps, Rope rope, int64_t n, void* out, bool bf16)
// Converts n values of a row between float and bf16.
KERNEL(widen, const Bf16* x, int64_t n, float* out)
KERNEL(narrow, const float* x, int64_t n, Bf16* out)
// dst[r] = base[r] + weight[r / head_dim] · x[r] for one row of heads; weight null: 1. Float or bf16 base and dst.
KERNEL(gated, const float* x, const void* base, const float* weight, int64_t heads, int64_t dim, void* dst, bool bf16)
// Where the largest of n values is, the first of equal ones; what is not a number is passed over. 0 where all are.
KERNEL(top, const float* x, int64_t n, int64_t* at)

#else

namespace c2c::C2C_ISA {

inline void widen(const Bf16* x, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(x + i));
  for (; i < n; ++i) out[i] = wide(x[i]);
}

inline void narrow(const float* x, int64_t n, Bf16* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(x + i));
  for (; i < n; ++i) out[i] = to_bf16(x[i]);
}

// 1 / sqrt(mean square + eps).
C2C_INLINE float inverse_rms(const float* x, double eps, int64_t n) {
  Vec squares[4]{};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int64_t v = 0; v < 4; ++v) {
      const Vec a = load(x + i + v * kLanes);
      squares[v] += a * a;
    }
  float total = sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
  for (; i < n; ++i) total += x[i] * x[i];
  return static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(total) / static_cast<double>(n) + eps));
}

template <class T>
C2C_INLINE void norm_to(const float* x, const float* weight, double eps, int64_t n, int64_t padded, T* out) {
  const float scale = inverse_rms(x, eps, n);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(x + i) * scale * load(weight + i));
  for (; i < n; ++i) put(out + i, x[i] * scale * weight[i]);
  for (; i < padded; ++i) put(out + i, 0.0F);
}

inline void norm(const float* x, const float* weight, double eps, int64_t n, int64_t padded, void* out, bool bf16) {
  if (bf16) return norm_to(x, weight, eps, n, padded, static_cast<Bf16*>(out));
  norm_to(x, weight, eps, n, padded, static_cast<float*>(out));
}

template <class T>
C2C_INLINE void turn_to(const float* x, const float* weight, double eps, Rope rope, int64_t n, T* out) {
  const int64_t half = n / 2;
  const float scale = weight ? inverse_rms(x, eps, n) : 1.0F;
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    Vec a = load(x + i), b = load(x + half + i);
    if (weight) {
      a = a * scale * load(weight + i);
      b = b * scale * load(weight + half + i);
    }
    const Vec c = load(rope.cos + i), s = load(rope.sin + i);
    store(out + i, a * c - b * s);
    store(out + half + i, b * c + a * s);
  }
  for (; i < half; ++i) {
    const float a = x[i] * (weight ? scale * weight[i] : 1.0F),
                b = x[half + i] * (weight ? scale * weight[half + i] : 1.0F);
    put(out + i, a * rope.cos[i] - b * rope.sin[i]);
    put(out + half + i, b * rope.cos[i] + a * rope.sin[i]);
  }
}

inline void turn(const float* x, const float* weight, double eps, Rope rope, int64_t n, void* out, bool bf16) {
  if (bf16) return turn_to(x, weight, eps, rope, n, static_cast<Bf16*>(out));
  turn_to(x, weight, eps, rope, n, static_cast<float*>(out));
}

template <class T>
C2C_INLINE void gated_to(const float* x, const T* base, const float* weight, int64_t heads, int64_t dim, T* dst) {
  for (int64_t h = 0; h < heads; ++h, x += dim, base += dim, dst += dim) {
    const float w = weight ? weight[h] : 1.0F;
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) store(dst + i, load(base + i) + w * load(x + i));
    for (; i < dim; ++i) put(dst + i, wide(base[i]) + w * x[i]);
  }
}

inline void gated(const float* x, const void* base, const float* weight, int64_t heads, int64_t dim, void* dst,
                  bool bf16) {
  if (bf16) return gated_to(x, static_cast<const Bf16*>(base), weight, heads, dim, static_cast<Bf16*>(dst));
  gated_to(x, static_cast<const float*>(base), weight, heads, dim, static_cast<float*>(dst));
}

// A stretch at a time: only that which holds the largest is looked through for its place.
inline void top(const float* x, int64_t n, int64_t* at) {
  constexpr int64_t kStretch = 64 * kLanes;
  float most = -__builtin_inff();
  int64_t found = 0;
  for (int64_t start = 0; start < n; start += kStretch) {
    const int64_t end = smaller(start + kStretch, n);
    Vec tops[4];
    for (Vec& t : tops) t = spread(most);
    int64_t i = start;
    for (; i + 4 * kLanes <= end; i += 4 * kLanes)
#pragma GCC unroll 4
      for (int64_t v = 0; v < 4; ++v) tops[v] = larger(load(x + i + v * kLanes), tops[v]);
    float here = largest(larger(larger(tops[0], tops[1]), larger(tops[2], tops[3])));
    for (; i < end; ++i) here = larger(x[i], here);
    if (here <= most) continue;
    most = here;
    found = start;
  }
  *at = found;
  for (int64_t i = found; i < smaller(found + kStretch, n); ++i)
    if (x[i] == most) {
      *at = i;
      return;
    }
}

}  // namespace c2c::C2C_ISA

#endif
