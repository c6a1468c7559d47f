// Attention of a few queries straight from the cache: one pass over keys and values with a running softmax.
#ifdef KERNEL

// One row's queries in a few KV heads side by side.
KERNEL(attend, const Attention&)
// One query head and a tile of queries, by blocked products.
KERNEL(attend_tile, const TileAttention&)

#else

namespace c2c::C2C_ISA {

constexpr int64_t kSpan = 16;                     // rows whose scores are held at a time
constexpr int64_t kQueries = 64;                  // most query heads in a pass
constexpr int64_t kStep = 2 * kLanes, kWide = 4;  // values of a step of dots, vectors of a step of mix

template <class T>
C2C_INLINE float dot(const T* a, const T* b, int64_t n) {
  int64_t i = 0;
  float total = 0;
#if defined(__AVX512BF16__)
  if constexpr (sizeof(T) == 2) {
    __m512 s = _mm512_setzero_ps();
    for (; i + 32 <= n; i += 32) s = _mm512_dpbf16_ps(s, read<__m512bh>(a + i), read<__m512bh>(b + i));
    total = _mm512_reduce_add_ps(s);
  }
#endif
  if (i + kLanes <= n) {
    Vec s{};
    for (; i + kLanes <= n; i += kLanes) s += load(a + i) * load(b + i);
    total += sum(s);
  }
  for (; i < n; ++i) total += wide(a[i]) * wide(b[i]);
  return total;
}

// Asks for the rows of the span behind ahead of their use: rows of one layer are further apart than the hardware looks
// ahead. All heads' parts of a row are asked for in the order in which memory has them, whichever head is at work, and
// the same few lines in each step of the work on this span: asked for in bursts, they would hold it up.
template <class T>
struct RowsAhead {
  static constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  const T *at, *end;  // of the row that is asked for
  int64_t stride, width, rows, share;

  // `steps`: how often there will be asked.
  RowsAhead(const T* row, int64_t stride, int64_t width, int64_t rows, int64_t steps)
      : at(row), end(row + width), stride(stride), width(width), rows(rows) {
    share = steps > 0 ? (rows * ((width + kLine - 1) / kLine) + steps - 1) / steps : 0;
  }

  C2C_INLINE void ask() {
    for (int64_t n = 0; n < share && rows > 0; ++n) {
      __builtin_prefetch(at);
      at += kLine;
      if (at < end) continue;
      end += stride;
      at = end - width;
      --rows;
    }
  }
};

// Products of one query and kLanes keys, in kLanes sums that do not wait for each other.
template <class T>
C2C_INLINE Vec dots(const T* query, const T* keys, int64_t stride, int64_t dim, RowsAhead<T>& ahead) {
  int64_t i = 0;
  Vec s[kLanes] = {};
#if defined(__AVX512BF16__)
  if constexpr (sizeof(T) == 2) {
    for (; i + kStep <= dim; i += kStep) {
      ahead.ask();
      const auto q = read<__m512bh>(query + i);
#pragma GCC unroll 16
      for (int64_t r = 0; r < kLanes; ++r)
        s[r] = (Vec)_mm512_dpbf16_ps((__m512)s[r], q, read<__m512bh>(keys + r * stride + i));
    }
  }
#endif
  for (; i + kStep <= dim; i += kStep) {
    ahead.ask();
    Vec q[2], k[2];
    load_two(query + i, q);
#pragma GCC unroll 16
    for (int64_t r = 0; r < kLanes; ++r) {
      load_two(keys + r * stride + i, k);
      s[r] += q[0] * k[0];
      s[r] += q[1] * k[1];
    }
  }
  if (i + kLanes <= dim) {
    const Vec q = load(query + i);
#pragma GCC unroll 16
    for (int64_t r = 0; r < kLanes; ++r) s[r] += q * load(keys + r * stride + i);
    i += kLanes;
  }
  Vec total = sums(s);
  for (; i < dim; ++i)
    for (int64_t r = 0; r < kLanes; ++r) total[r] += wide(query[i]) * wide(keys[r * stride + i]);
  return total;
}

// Scores of `rows` keys for one query.
template <class T>
C2C_INLINE void score(const T* query, const T* keys, int64_t stride, int64_t rows, RowsAhead<T>& ahead, int64_t dim,
                      float scale, float* out) {
  int64_t r = 0;
  for (; r + kLanes <= rows; r += kLanes) {
    store(out + r, dots(query, keys + r * stride, stride, dim, ahead) * scale);
  }
  for (; r < rows; ++r) out[r] = dot(query, keys + r * stride, dim) * scale;
}

// out[g][d] += Σ_r p[g][r] · values[r][d] for G queries.
template <int64_t G, class T>
C2C_INLINE void mix(const float* p, const T* values, int64_t stride, int64_t rows, RowsAhead<T>& ahead, int64_t dim,
                    float* out) {
  int64_t d = 0;
  for (; d + kWide * kLanes <= dim; d += kWide * kLanes) {
    Vec s[G][kWide];
#pragma GCC unroll 4
    for (int64_t g = 0; g < G; ++g)
#pragma GCC unroll 2
      for (int64_t v = 0; v < kWide; v += 2) load_as<T>(out + g * dim + d + v * kLanes, s[g] + v, AllLanes{});
    for (int64_t r = 0; r < rows; ++r) {
      ahead.ask();
      Vec x[kWide];
#pragma GCC unroll 2
      for (int64_t v = 0; v < kWide; v += 2) load_two(values + r * stride + d + v * kLanes, x + v);
#pragma GCC unroll 4
      for (int64_t g = 0; g < G; ++g) {
        const Vec w = spread(p[g * kSpan + r]);
#pragma GCC unroll 4
        for (int64_t v = 0; v < kWide; ++v) s[g][v] += w * x[v];
      }
    }
#pragma GCC unroll 4
    for (int64_t g = 0; g < G; ++g)
#pragma GCC unroll 2
      for (int64_t v = 0; v < kWide; v += 2) store_as<T>(out + g * dim + d + v * kLanes, s[g] + v, AllLanes{});
  }
  for (int64_t g = 0; g < G; ++g) {
    int64_t e = d;
    for (; e + kLanes <= dim; e += kLanes) {
      Vec s = load(out + g * dim + e);
      for (int64_t r = 0; r < rows; ++r) s += p[g * kSpan + r] * load(values + r * stride + e);
      store(out + g * dim + e, s);
    }
    for (; e < dim; ++e)
      for (int64_t r = 0; r < rows; ++r) out[g * dim + e] += p[g * kSpan + r] * wide(values[r * stride + e]);
  }
}

// Turns scores into weights, moves `top` up and scales what was summed before. False where nothing is visible.
inline bool soften(float* scores, int64_t rows, float* top, float* mass, float* out, int64_t dim) {
  int64_t at = 0;
  Vec tops = spread(scores[0]);
  for (; at + kLanes <= rows; at += kLanes) tops = larger(tops, load(scores + at));
  float most = largest(tops);
  for (; at < rows; ++at) most = larger(most, scores[at]);
  if (most == -__builtin_inff()) {
    for (int64_t r = 0; r < rows; ++r) scores[r] = 0;
    return false;
  }
  if (most > *top) {
    const float shrink = *mass > 0 ? exp(spread(*top - most))[0] : 0.0F;
    int64_t d = 0;
    for (; d + kLanes <= dim; d += kLanes) store(out + d, load(out + d) * shrink);
    for (; d < dim; ++d) out[d] *= shrink;
    *mass *= shrink;
    *top = most;
  }
  float total = 0;
  int64_t r = 0;
  Vec sums{};
  for (; r + kLanes <= rows; r += kLanes) {
    const Vec e = exp(load(scores + r) - *top);
    store(scores + r, e);
    sums += e;
  }
  for (; r < rows; ++r) total += scores[r] = exp(spread(scores[r] - *top))[0];
  *mass += total + sum(sums);
  return true;
}

// Scores of every query of a span become weights: for kLanes queries at a time, so that the chain from the largest
// score to the weights is gone through once for all of them.
inline void soften_all(float* scores, int64_t queries, int64_t dim, float* top, float* mass, float* out) {
  constexpr int64_t kVecs = kSpan / kLanes;
  for (int64_t q = 0; q < queries; q += kLanes) {
    const int64_t count = smaller(kLanes, queries - q);
    float* own = scores + q * kSpan;
    Vec s[kLanes];
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) {
      s[i] = load(own + i * kSpan);
#pragma GCC unroll 4
      for (int64_t v = 1; v < kVecs; ++v) s[i] = larger(s[i], load(own + i * kSpan + v * kLanes));
    }
    const Vec old = load(top + q), now = larger(old, tops(s));
    // Where nothing is visible yet, both are -∞ and any base will do.
    const Vec base = now == -__builtin_inff() ? Vec{} : now;
    alignas(64) float bases[kLanes], shrinks[kLanes];
    const Vec shrink = exp(old - base);
    store(top + q, now);
    store(bases, base);
    store(shrinks, shrink);
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) {
      s[i] = Vec{};
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVecs; ++v) {
        const Vec e = exp(load(own + i * kSpan + v * kLanes) - spread(bases[i]));
        store(own + i * kSpan + v * kLanes, e);
        s[i] += e;
      }
    }
    store(mass + q, load(mass + q) * shrink + sums(s));
    for (int64_t i = 0; i < count; ++i) {
      if (shrinks[i] == 1.0F) continue;
      float* sum = out + (q + i) * dim;
      int64_t d = 0;
      for (; d + kLanes <= dim; d += kLanes) store(sum + d, load(sum + d) * shrinks[i]);
      for (; d < dim; ++d) sum[d] *= shrinks[i];
    }
  }
}

// Up to kQueries queries of heads that lie side by side. All of them read a span of rows before the next one is begun.
template <class T>
void attend_rows(const Attention& a, const T* keys, const T* values, int64_t stride, int64_t from, int64_t rows,
                 float* top, float* mass) {
  alignas(64) float scores[kQueries * kSpan] = {};  // queries beyond the last are softened along
  const int64_t queries = a.heads * a.group;
  const auto* query = static_cast<const T*>(a.query);
  for (int64_t start = 0; start < rows; start += kSpan) {
    const int64_t count = smaller(kSpan, rows - start), next = smaller(kSpan, rows - start - count);
    const uint32_t* positions = a.sight.positions ? a.sight.positions + from + start : nullptr;
    bool any = positions == nullptr;
    for (int64_t r = 0; !any && r < count; ++r)
      any = int64_t{a.sight.position} - int64_t{positions[r]} < a.sight.window;
    if (!any) continue;
    const T *k = keys + start * stride, *v = values + start * stride;
    const int64_t width = a.heads * a.dim;
    const int64_t key_steps = queries * (count / kLanes) * (a.dim / kStep);
    const int64_t value_steps = a.heads * ((a.group + 3) / 4) * (a.dim / (kWide * kLanes)) * count;
    RowsAhead<T> next_keys(k + count * stride, stride, width, next, key_steps);
    RowsAhead<T> next_values(v + count * stride, stride, width, next, value_steps);
    for (int64_t q = 0; q < queries; ++q)
      score(query + q * a.dim, k + q / a.group * a.dim, stride, count, next_keys, a.dim, a.scale, scores + q * kSpan);
    if (count < kSpan || positions)
      for (int64_t r = 0; r < kSpan; ++r)
        if (r >= count || (positions && int64_t{a.sight.position} - int64_t{positions[r]} >= a.sight.window))
          for (int64_t q = 0; q < queries; ++q) scores[q * kSpan + r] = -__builtin_inff();
    soften_all(scores, queries, a.dim, top, mass, a.out);
    for (int64_t head = 0; head < a.heads; ++head)
      for (int64_t g = 0; g < a.group; g += 4) {
        const int64_t q = head * a.group + g;
        const float* p = scores + q * kSpan;
        float* out = a.out + q * a.dim;
        const T* x = v + head * a.dim;
        if (a.group - g >= 4) mix<4>(p, x, stride, count, next_values, a.dim, out);
        if (a.group - g == 3) mix<3>(p, x, stride, count, next_values, a.dim, out);
        if (a.group - g == 2) mix<2>(p, x, stride, count, next_values, a.dim, out);
        if (a.group - g == 1) mix<1>(p, x, stride, count, next_values, a.dim, out);
      }
  }
}

template <class T>
void attend_some(const Attention& a) {
  const int64_t queries = a.heads * a.group;
  alignas(64) float top[kQueries], mass[kQueries];
  for (int64_t i = 0; i < queries * a.dim; ++i) a.out[i] = 0;
  for (int64_t q = 0; q < kQueries; ++q) {
    top[q] = -__builtin_inff();
    mass[q] = 0;
  }
  int64_t before = 0;  // rows of the runs already passed
  for (const RowRun* s = a.sight.runs; before < a.end; before += s->rows, ++s) {
    const int64_t from = a.begin > before ? a.begin : before, to = smaller(a.end, before + s->rows);
    if (from >= to) continue;
    const int64_t offset = (from - before) * s->stride + a.head_offset;
    attend_rows(a, static_cast<const T*>(s->keys) + offset, static_cast<const T*>(s->values) + offset, s->stride, from,
                to - from, top, mass);
  }
  for (int64_t q = 0; q < queries; ++q) {
    a.top[q] = top[q];
    a.mass[q] = mass[q];
  }
}

// As many whole heads at a time as have kQueries queries; a head with more of them takes several passes.
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
      attend_some<T>(some);
    }
}

inline void attend(const Attention& a) {
  if (a.bf16) return attend_all<Bf16>(a);
  attend_all<float>(a);
}

// ── many queries: blocked products over packed keys and values ───────────────────────────────────────────────────────

template <class T>
void attend_blocks(const TileAttention& a) {
  constexpr Store kKind = sizeof(T) == 2 ? Store::kBf16 : Store::kFloat;
  auto* scores = reinterpret_cast<float*>(a.scratch);                 // [kTileRows, kTileKeys]
  T* weights = reinterpret_cast<T*>(scores + kTileRows * kTileKeys);  // [kTileRows, kTileKeys]
  const int64_t width = round_up(a.dim, kBlock);
  float* out = reinterpret_cast<float*>(a.scratch) + 2 * kTileRows * kTileKeys;  // [kTileRows, width]
  float *top = out + kTileRows * width, *mass = top + kTileRows;
  for (int64_t i = 0; i < kTileRows * width; ++i) out[i] = 0;
  for (int64_t r = 0; r < a.rows; ++r) {
    top[r] = -__builtin_inff();
    mass[r] = 0;
  }
  Product find{.store = kKind, .x = a.query, .x_stride = a.query_stride, .in = a.dim};
  find.out = scores;
  find.out_stride = find.outputs = kTileKeys;
  find.rows = a.rows;
  Product gather{.store = kKind, .x = weights, .x_stride = kTileKeys};
  gather.after = After::kAdd;
  gather.out = out;
  gather.out_stride = gather.outputs = width;
  gather.rows = a.rows;
  const int64_t last = smaller(a.seen, a.first + a.rows);  // rows that the last query sees
  const int64_t item = block_bytes(kKind, a.seen);
  for (int64_t k0 = 0; k0 < last; k0 += kTileKeys) {
    const int64_t keys = smaller(kTileKeys, last - k0), padded = round_up(keys, 2);
    if (a.positions) {
      // The tile's first query has the widest reach back.
      bool any = false;
      for (int64_t r = 0; r < a.rows && !any; ++r)
        for (int64_t k = 0; k < keys && !any; ++k)
          any = int64_t{a.positions[a.first + r]} - int64_t{a.positions[k0 + k]} < a.window;
      if (!any) continue;
    }
    find.weight = a.keys + k0 / kBlock * block_bytes(kKind, a.dim);
    product(find, 0, (keys + kBlock - 1) / kBlock, nullptr);
    for (int64_t r = 0; r < a.rows; ++r) {
      float* own = scores + r * kTileKeys;
      const int64_t seen = smaller(keys, a.first + r + 1 - k0);  // may be below 1
      for (int64_t k = 0; k < seen; ++k) own[k] *= a.scale;
      for (int64_t k = seen > 0 ? seen : 0; k < padded; ++k) own[k] = -__builtin_inff();
      if (a.positions)
        for (int64_t k = 0; k < seen; ++k)
          if (int64_t{a.positions[a.first + r]} - int64_t{a.positions[k0 + k]} >= a.window) own[k] = -__builtin_inff();
      soften(own, padded, top + r, mass + r, out + r * width, a.dim);
      T* row = weights + r * kTileKeys;
      int64_t k = 0;
      for (; k + kLanes <= padded; k += kLanes) store(row + k, load(own + k));
      for (; k < padded; ++k) put(row + k, own[k]);
    }
    // A run of inputs inside the packed values: each block starts k0 inputs further on.
    gather.in = kKind == Store::kFloat ? keys : padded;
    for (int64_t b = 0; b < width / kBlock; ++b) {
      Product part = gather;
      part.out = out + b * kBlock;
      part.outputs = kBlock;
      part.weight = a.values + b * item + k0 * kBlock * static_cast<int64_t>(sizeof(T));
      product(part, 0, 1, nullptr);
    }
  }
  for (int64_t r = 0; r < a.rows; ++r) {
    T* row = static_cast<T*>(a.out) + r * a.out_stride;
    const float scale = 1.0F / mass[r];
    int64_t d = 0;
    for (; d + kLanes <= a.dim; d += kLanes) store(row + d, load(out + r * width + d) * scale);
    for (; d < a.dim; ++d) put(row + d, out[r * width + d] * scale);
  }
}

inline void attend_tile(const TileAttention& a) {
  if (a.bf16) return attend_blocks<Bf16>(a);
  attend_blocks<float>(a);
}

}  // namespace c2c::C2C_ISA

#endif
