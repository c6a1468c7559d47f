// Attention of a few queries straight from the cache: one pass over keys and values with a running softmax.
#ifdef KERNEL

// One row's queries in a few KV heads side by side.
KERNEL(attend, const Attention&)

#else

namespace c2c::C2C_ISA {

// The lanes of a step's scores as [query][row], so that rows of a query lie side by side.
template <int64_t J, int... I>
C2C_INLINE Vec by_query(Vec v, Lanes<I...>) {
  return __builtin_shufflevector(v, v, (I % kRowsOf<J> * J + I / kRowsOf<J>)...);
}

// The largest over the rows, in all lanes of a query; lanes of a query are D apart.
template <int64_t D>
C2C_INLINE Vec over_rows(Vec v) {
  if constexpr (D >= kLanes) {
    return v;
  } else {
    return over_rows<2 * D>(larger(v, far<D>(v, v, AllLanes{})));
  }
}

// A weight as it is stored, so that the sum of weights is that of the stored ones.
template <class S>
C2C_INLINE Vec rounded_to(Vec e) {
  if constexpr (sizeof(S) == 4) {
    return e;
  } else {
    const Bits bits = (Bits)e;
    return (Vec)((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000U);
  }
}

// Scores of a span become weights, weights[rows / kTogether][chunk][query][kTogether]; `top` moves up and what was
// summed before is scaled. Lanes of `top` and `mass`: [chunk][row][query], each row's mass apart.
template <int64_t J, class T>
void soften_span(const float* scores, int64_t steps, int64_t queries, int64_t dim, float* top, float* mass, float* out,
                 Kept<T>* weights) {
  using S = Kept<T>;
  const int64_t chunks = (queries + J - 1) / J;
  for (int64_t c = 0; c < chunks; ++c) {
    const float* own = scores + c * kLanes;
    Vec most = load(own);
    for (int64_t s = 1; s < steps; ++s) most = larger(most, load(own + s * chunks * kLanes));
    const Vec old = load(top + c * kLanes), now = larger(old, over_rows<J>(most));
    // Where nothing is visible yet, both are -∞ and any base will do.
    const Vec base = now == -__builtin_inff() ? Vec{} : now;
    const Vec shrink = exp(old - base);
    constexpr int64_t kSteps = kRowGroup / kRowsOf<J>;  // of a group of rows
    Vec sum[kSteps];
#pragma GCC unroll 4
    for (int64_t n = 0; n < kSteps; ++n) sum[n] = load(mass + (c * kSteps + n) * kLanes) * shrink;
    for (int64_t s = 0; s < steps; s += kSteps) {
      Vec e[kSteps];
#pragma GCC unroll 4
      for (int64_t n = 0; n < kSteps; ++n) {
        e[n] = rounded_to<S>(exp(load(own + (s + n) * chunks * kLanes) - base));
        sum[n] += e[n];
      }
      if constexpr ((kTogether<T, J>) != kRowsOf<J>) {
#pragma GCC unroll 4
        for (int64_t n = 0; n < kSteps; n += 2)
          write(weights + ((s + n) * chunks + 2 * c) * kLanes, pairs(e[n], e[n + 1]));
      } else {
#pragma GCC unroll 4
        for (int64_t n = 0; n < kSteps; ++n)
          store(weights + ((s + n) * chunks + c) * kLanes, by_query<J>(e[n], AllLanes{}));
      }
    }
#pragma GCC unroll 4
    for (int64_t n = 0; n < kSteps; ++n) store(mass + (c * kSteps + n) * kLanes, sum[n]);
    store(top + c * kLanes, now);
    for (int64_t j = 0; j < smaller(J, queries - c * J); ++j) {
      if (shrink[j] == 1.0F) continue;
      float* scaled = out + (c * J + j) * dim;
      int64_t d = 0;
      for (; d + kLanes <= dim; d += kLanes) store(scaled + d, load(scaled + d) * shrink[j]);
      for (; d < dim; ++d) scaled[d] *= shrink[j];
    }
  }
}

// out[g][d] += Σ_r weight[g][r] · rows[r][d] for G queries and R rows, an even number; D is dim, or 0 for any. The sums
// of kTwo values lie as the rows' halves give them, until tidy() is called.
template <int64_t G, int64_t R, int64_t D, class T>
C2C_INLINE void mix(const Kept<T> (*weight)[kMixed], const T* rows, int64_t stride, int64_t any, float* out,
                    Lines& ahead) {
  const int64_t dim = D > 0 ? D : any;
  int64_t d = 0;
  for (; d + kTwo <= dim; d += kTwo) {
    ahead.ask();
    Vec s[G][2];
#pragma GCC unroll 4
    for (int64_t g = 0; g < G; ++g) {
      s[g][0] = load(out + g * dim + d);
      s[g][1] = load(out + g * dim + d + kLanes);
    }
#if defined(__AVX512BF16__)
    if constexpr (kPaired<T>) {
      const T* row = rows + d;
#pragma GCC unroll 4
      for (int64_t r = 0; r < R; r += 2, row += 2 * stride) {
        const __m512i even = _mm512_loadu_si512(row), odd = _mm512_loadu_si512(row + stride);
        const auto low = (__m512bh)_mm512_unpacklo_epi16(even, odd), high = (__m512bh)_mm512_unpackhi_epi16(even, odd);
#pragma GCC unroll 4
        for (int64_t g = 0; g < G; ++g) {
          const auto w = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair(weight[g] + r)));
          s[g][0] = (Vec)_mm512_dpbf16_ps((__m512)s[g][0], low, w);
          s[g][1] = (Vec)_mm512_dpbf16_ps((__m512)s[g][1], high, w);
        }
      }
    }
#endif
    if constexpr (!kPaired<T>) {
      const T* row = rows + d;
#pragma GCC unroll 8
      for (int64_t r = 0; r < R; ++r, row += stride) {
        Vec x[2];
        load_two(row, x);
#pragma GCC unroll 4
        for (int64_t g = 0; g < G; ++g) {
          const Vec w = spread(wide(weight[g][r]));
          s[g][0] += w * x[0];
          s[g][1] += w * x[1];
        }
      }
    }
#pragma GCC unroll 4
    for (int64_t g = 0; g < G; ++g) {
      store(out + g * dim + d, s[g][0]);
      store(out + g * dim + d + kLanes, s[g][1]);
    }
  }
  if constexpr (D == 0 || D % kTwo != 0)
    for (int64_t g = 0; g < G; ++g) {
      int64_t e = d;
      for (; e + kLanes <= dim; e += kLanes) {
        Vec s = load(out + g * dim + e);
        for (int64_t r = 0; r < R; ++r) s += wide(weight[g][r]) * load(rows + r * stride + e);
        store(out + g * dim + e, s);
      }
      for (; e < dim; ++e)
        for (int64_t r = 0; r < R; ++r) out[g * dim + e] += wide(weight[g][r]) * wide(rows[r * stride + e]);
    }
}

template <int64_t R, int64_t D, class T>
C2C_INLINE void mix_some(int64_t queries, const Kept<T> (*weight)[kMixed], const T* rows, int64_t stride, int64_t dim,
                         float* out, Lines& ahead) {
  if (queries == 4) mix<4, R, D>(weight, rows, stride, dim, out, ahead);
  if (queries == 3) mix<3, R, D>(weight, rows, stride, dim, out, ahead);
  if (queries == 2) mix<2, R, D>(weight, rows, stride, dim, out, ahead);
  if (queries == 1) mix<1, R, D>(weight, rows, stride, dim, out, ahead);
}

// The order of mix() undone for one query.
template <class T, int... I>
C2C_INLINE void tidy(float* out, int64_t dim, Lanes<I...>) {
  if constexpr (sizeof(T) == 2)
    for (int64_t d = 0; d + kTwo <= dim; d += kTwo) {
      const Vec x[2] = {load(out + d), load(out + d + kLanes)};
      if constexpr (kPaired<T>) {
        // Units of 128 bits: values 0 to 3 of eight are in the first vector, 4 to 7 in the second.
        store(out + d, __builtin_shufflevector(x[0], x[1], (I / 8 * 4 + I % 4 + (I % 8 < 4 ? 0 : kLanes))...));
        store(out + d + kLanes,
              __builtin_shufflevector(x[0], x[1], ((I + kLanes) / 8 * 4 + I % 4 + (I % 8 < 4 ? 0 : kLanes))...));
      } else {
        store_two(out + d, x[0], x[1], AllLanes{});
      }
    }
}

// Sums of a span's values for all queries.
template <int64_t J, int64_t D, class T>
void add_values(const Attention& a, const Few& few, const Order<T>& values, const Kept<T>* weights) {
  for (int64_t r0 = 0, rows; r0 < values.count; r0 += rows) {
    const int64_t left = values.count - r0;
    rows = left >= kMixed ? kMixed : smaller(2, left);
    Lines ahead{values.at(r0 + kRowsAhead), rows == kMixed ? few.mix_step : 0};
    const T* row = values.first + r0 * values.stride;
    for (int64_t head = 0; head < a.heads; ++head, row += a.dim)
      for (int64_t g = 0; g < a.group; g += kFour) {
        const int64_t q = head * a.group + g, some = smaller(kFour, a.group - g);
        Kept<T> weight[kFour][kMixed];
        for (int64_t i = 0; i < some; ++i) {
          constexpr int64_t kRun = kTogether<T, J>;
          const int64_t step = few.chunks * J * kRun;
          const Kept<T>* from = weights + (q + i) * kRun;
          if (rows == kMixed) {
#pragma GCC unroll 8
            for (int64_t r = 0; r < kMixed; r += kRun)
              __builtin_memcpy(weight[i] + r, from + (r0 + r) / kRun * step, sizeof(Kept<T>) * kRun);
          } else {
            for (int64_t r = 0; r < 2; ++r)
              weight[i][r] = r < rows ? from[(r0 + r) / kRun * step + (r0 + r) % kRun] : Kept<T>{};
          }
        }
        float* out = a.out + q * a.dim;
        if (rows == kMixed) {
          mix_some<kMixed, D>(some, weight, row, values.stride, a.dim, out, ahead);
        } else {
          // A single last row is taken twice, the second time with no weight.
          mix_some<2, D>(some, weight, row, rows == 2 ? values.stride : 0, a.dim, out, ahead);
        }
      }
  }
}

// Rows [from, from + rows) of the sight, which lie in one run.
template <int64_t J, int64_t D, class T>
void attend_rows(const Attention& a, const Few& few, const T* keys, const T* values, int64_t stride, int64_t from,
                 int64_t rows, float* top, float* mass) {
  alignas(64) float scores[kQueries * kSpan];
  alignas(64) Kept<T> weights[kQueries * kSpan];
  Few spaced = few;
  if (a.heads * a.dim != stride) spaced.key_step = spaced.mix_step = 0;
  for (int64_t start = 0; start < rows; start += kSpan) {
    const int64_t count = smaller(kSpan, rows - start), next = smaller(kSpan, rows - start - count);
    const uint32_t* positions = a.sight.positions ? a.sight.positions + from + start : nullptr;
    const auto hidden = [&](int64_t r) {
      return r >= count || (positions && int64_t{a.sight.position} - int64_t{positions[r]} >= a.sight.window);
    };
    bool any = positions == nullptr;
    for (int64_t r = 0; !any && r < count; ++r) any = !hidden(r);
    if (!any) continue;
    const T *k = keys + start * stride, *v = values + start * stride;
    const Order<T> first{k, v, count, count, stride}, second{v, k + count * stride, count, next, stride};
    if (a.group % 4 == 0) {
      score<J, 4, D>(a, spaced, first, scores);
    } else if (a.group % 2 == 0) {
      score<J, 2, D>(a, spaced, first, scores);
    } else {
      score<J, 1, D>(a, spaced, first, scores);
    }
    constexpr int64_t kStep = kRowsOf<J>;
    const int64_t held = round_up(count, kRowGroup);
    if (positions || held != count)
      for (int64_t r = 0; r < held; ++r)
        if (hidden(r))
          for (int64_t q = 0; q < few.chunks * J; ++q)
            scores[(r / kStep * few.chunks + q / J) * kLanes + r % kStep * J + q % J] = -__builtin_inff();
    soften_span<J, T>(scores, held / kStep, a.heads * a.group, a.dim, top, mass, a.out, weights);
    add_values<J, D>(a, spaced, second, weights);
  }
}

template <int64_t J, int64_t D, class T>
void attend_some(const Attention& a) {
  const int64_t queries = a.heads * a.group;
  alignas(64) float top[kQueries / J * kLanes], mass[kQueries * kRowGroup];
  for (int64_t i = 0; i < queries * a.dim; ++i) a.out[i] = 0;
  for (float& lane : top) lane = -__builtin_inff();
  for (float& lane : mass) lane = 0;
  Few few{};
  few.chunks = (queries + J - 1) / J;
  for (int64_t q = 0; q < few.chunks * J; ++q) few.offset[q] = smaller(q, queries - 1) / a.group * a.dim;
  const auto each = [&](int64_t rows, int64_t steps) {
    const int64_t bytes = rows * a.heads * a.dim * static_cast<int64_t>(sizeof(T));
    if (steps == 0) return int64_t{0};
    const int64_t step = (bytes + steps - 1) / steps;
    return step < 64 ? step : round_up(step, 64);  // a line may be asked for by several steps, but none beyond
  };
  const int64_t shared = a.group % 4 == 0 ? 4 : a.group % 2 == 0 ? 2 : 1;
  few.key_step = each(kRowsOf<J>, few.chunks * (J / shared) * (a.dim / kTwo));
  few.mix_step = each(kMixed, a.heads * ((a.group + kFour - 1) / kFour) * (a.dim / kTwo));
  int64_t before = 0;  // rows of the runs already passed
  for (const RowRun* s = a.sight.runs; before < a.end; before += s->rows, ++s) {
    const int64_t from = a.begin > before ? a.begin : before, to = smaller(a.end, before + s->rows);
    if (from >= to) continue;
    const int64_t offset = (from - before) * s->stride + a.head_offset;
    attend_rows<J, D>(a, few, static_cast<const T*>(s->keys) + offset, static_cast<const T*>(s->values) + offset,
                      s->stride, from, to - from, top, mass);
  }
  for (int64_t q = 0; q < queries; ++q) {
    tidy<T>(a.out + q * a.dim, a.dim, AllLanes{});
    a.top[q] = top[q / J * kLanes + q % J];
    a.mass[q] = 0;
    for (int64_t r = 0; r < kRowGroup; ++r) a.mass[q] += mass[(q / J * kRowGroup + r) * J + q % J];
  }
}

// As many whole heads at a time as have kQueries queries; a head with more of them takes several passes. The usual size
// of a head is known where rows are multiplied, which spares loops of a few turns.
template <class T>
void attend_all(const Attention& a) {
  const int64_t heads = a.group < kQueries ? kQueries / a.group : 1;
  for (int64_t head = 0; head < a.heads; head += heads)
    for (int64_t g = 0; g < a.group; g += kQueries) {
      const int64_t q = head * a.group + g;
      Attention some = a;
      some.head_offset += head * a.dim;
      some.heads = smaller(heads, a.heads - head);
      some.group = smaller(kQueries, a.group - g);
      some.query = static_cast<const T*>(a.query) + q * a.dim;
      some.out += q * a.dim;
      some.top += q;
      some.mass += q;
      if (some.heads * some.group % kMany == 0) {
        a.dim == 128 ? attend_some<kMany, 128, T>(some) : attend_some<kMany, 0, T>(some);
      } else {
        a.dim == 128 ? attend_some<kFour, 128, T>(some) : attend_some<kFour, 0, T>(some);
      }
    }
}

inline void attend(const Attention& a) {
  if (a.bf16) return attend_all<Bf16>(a);
  attend_all<float>(a);
}

}  // namespace c2c::C2C_ISA

#endif
