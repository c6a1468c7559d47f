// Scores of a few queries: what attention.inl begins with, and what both halves of it share.
#ifndef KERNEL

namespace c2c::C2C_ISA {

// Rows are gone through in spans: all keys of a span, then all its values, each in the order in which memory has them.
// A step takes a few rows with all that lies in them, so that no more than a handful of lines compete for a set of the
// first-level cache: rows are often a power of two apart.
constexpr int64_t kSpan = 32;                // rows whose scores are held at a time
constexpr int64_t kQueries = 64;             // most query heads in a pass
constexpr int64_t kFour = 4;                 // queries of a step of scores
constexpr int64_t kRowsOf = kLanes / kFour;  // rows of a step of scores: a vector has a lane for each row and query
constexpr int64_t kMixed = 8;                // rows of a step of sums
constexpr int64_t kTwo = 2 * kLanes;         // values of a row that are taken at a time

// What weights of values are kept as: where a unit multiplies pairs of bf16, so are they.
#if defined(__AVX512BF16__)
template <class T>
using Kept = std::conditional_t<sizeof(T) == 2, Bf16, float>;
#else
template <class T>
using Kept = float;
#endif
template <class T>
constexpr bool kPaired = sizeof(Kept<T>) == 2;

// One half of kTwo values, in the order of load_two.
template <int64_t H>
C2C_INLINE Vec half_of(const float* p) {
  return load(p + H * kLanes);
}
template <int64_t H>
C2C_INLINE Vec half_of(const Bf16* p) {
  const Bits both = read<Bits>(p);
  return (Vec)(H == 0 ? both << 16 : both & 0xffff0000U);
}

// s[r · 4 + j] += query j · row r for one half of kTwo values.
template <int64_t H, int64_t P, class T>
C2C_INLINE void add_products(Vec* s, const T* query, int64_t dim, const T* const* row, const int64_t* head) {
  Vec q[kFour];
#pragma GCC unroll 4
  for (int64_t j = 0; j < kFour; ++j) q[j] = half_of<H>(query + j * dim);
#pragma GCC unroll 4
  for (int64_t r = 0; r < kRowsOf; ++r)
#pragma GCC unroll 4
    for (int64_t h = 0; h < kFour / P; ++h) {
      const Vec k = half_of<H>(row[r] + head[h]);
#pragma GCC unroll 4
      for (int64_t j = h * P; j < (h + 1) * P; ++j) s[r * kFour + j] += q[j] * k;
    }
}

#if defined(__AVX512BF16__)
C2C_INLINE __m512bh pairs_at(const Bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }

template <int64_t P>
C2C_INLINE void add_pairs(Vec* s, const Bf16* query, int64_t dim, const Bf16* const* row, const int64_t* head) {
  __m512bh q[kFour];
#pragma GCC unroll 4
  for (int64_t j = 0; j < kFour; ++j) q[j] = pairs_at(query + j * dim);
#pragma GCC unroll 4
  for (int64_t r = 0; r < kRowsOf; ++r)
#pragma GCC unroll 4
    for (int64_t h = 0; h < kFour / P; ++h) {
      const __m512bh k = pairs_at(row[r] + head[h]);
#pragma GCC unroll 4
      for (int64_t j = h * P; j < (h + 1) * P; ++j)
        s[r * kFour + j] = (Vec)_mm512_dpbf16_ps((__m512)s[r * kFour + j], q[j], k);
    }
}
#endif

// Products of four queries and kRowsOf keys each, in kLanes sums that do not wait for each other; lane r · 4 + j is row
// r and query j. P queries side by side share a KV head. `offset`: where their heads begin in a row.
template <int64_t P, class T>
C2C_INLINE Vec dots(const T* query, const T* const* rows, const int64_t* offset, int64_t dim, Lines& ahead) {
  Vec s[kLanes] = {};
  const T* row[kRowsOf];
  int64_t head[kFour / P];
#pragma GCC unroll 4
  for (int64_t r = 0; r < kRowsOf; ++r) row[r] = rows[r];
#pragma GCC unroll 4
  for (int64_t h = 0; h < kFour / P; ++h) head[h] = offset[h * P];
  int64_t i = 0;
  for (; i + kTwo <= dim; i += kTwo, query += kTwo) {
    ahead.ask();
#if defined(__AVX512BF16__)
    if constexpr (sizeof(T) == 2) {
      add_pairs<P>(s, query, dim, row, head);
    } else
#endif
    {
      add_products<0, P>(s, query, dim, row, head);
      add_products<1, P>(s, query, dim, row, head);
    }
#pragma GCC unroll 4
    for (int64_t h = 0; h < kFour / P; ++h) head[h] += kTwo;
  }
  if (i + kLanes <= dim) {
#pragma GCC unroll 16
    for (int64_t l = 0; l < kLanes; ++l)
      s[l] += load(query + l % kFour * dim) * load(row[l / kFour] + head[l % kFour / P]);
    i += kLanes;
    query += kLanes;
    for (int64_t h = 0; h < kFour / P; ++h) head[h] += kLanes;
  }
  Vec total = sums(s);
  for (int64_t n = 0; i + n < dim; ++n)
    for (int64_t l = 0; l < kLanes; ++l)
      total[l] += wide(query[l % kFour * dim + n]) * wide(row[l / kFour][head[l % kFour / P] + n]);
  return total;
}

// What is the same for all rows of a call.
struct Few {
  int64_t chunks;              // of four queries; those beyond the last have scores that nobody reads
  int64_t offset[kQueries];    // where each query's KV head begins in a row
  int64_t key_step, mix_step;  // bytes to ask for with each step; 0 where rows do not lie side by side
};

// Rows that are asked for while others are at work: `first` of one run and, behind its end, of the one read next.
template <class T>
struct Order {
  const T *first, *then;
  int64_t count, then_count, stride;

  // Row `row` of both together; the first one, which is there already, where there is none.
  C2C_INLINE const std::byte* at(int64_t row) const {
    const T* found = first;
    if (row < count) {
      found = first + row * stride;
    } else if (row - count < then_count) {
      found = then + (row - count) * stride;
    }
    return reinterpret_cast<const std::byte*>(found);
  }
};
constexpr int64_t kRowsAhead = 8;  // rows from one that is read to the one that is asked for

// Scores of a span's keys for all queries: scores[step][chunk of four queries].
template <int64_t P, class T>
void score(const Attention& a, const Few& few, const Order<T>& keys, float* scores) {
  for (int64_t r0 = 0; r0 < keys.count; r0 += kRowsOf) {
    const T* rows[kRowsOf];  // the last row again where there are no more
    for (int64_t r = 0; r < kRowsOf; ++r) rows[r] = keys.first + smaller(r0 + r, keys.count - 1) * keys.stride;
    Lines ahead{keys.at(r0 + kRowsAhead), few.key_step};
    const T* query = static_cast<const T*>(a.query);
    for (int64_t c = 0; c < few.chunks; ++c, query += kFour * a.dim, scores += kLanes)
      store(scores, dots<P>(query, rows, few.offset + c * kFour, a.dim, ahead) * a.scale);
  }
}

}  // namespace c2c::C2C_ISA

#endif
