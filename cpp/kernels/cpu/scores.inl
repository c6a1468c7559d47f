// Scores of a few queries: what attention.inl begins with, and what both halves of it share.
#ifndef KERNEL

namespace c2c::C2C_ISA {

// Rows are gone through in spans: all keys of a span, then all its values, each in the order in which memory has them.
// A step of scores fills a vector, with a lane for each of its rows and queries: J queries of one row where a vector is
// long and their number fills whole ones, so that a row's heads are read one after the other, else four queries and a
// few rows, which share what it takes to make queries of bf16 floats.
// A step of sums takes a few rows with all that lies in them. More rows than a handful would compete for a set of the
// first-level cache: they are often a power of two apart.
constexpr int64_t kSpan = 32;                             // rows whose scores are held at a time
constexpr int64_t kQueries = 64;                          // most query heads in a pass
constexpr int64_t kFour = 4;                              // fewest queries of a step of scores
constexpr int64_t kMany = kLanes >= 16 ? kLanes : kFour;  // most queries of one
constexpr int64_t kMixed = 8;                             // rows of a step of sums
constexpr int64_t kTwo = 2 * kLanes;                      // values of a row that are taken at a time
template <int64_t J>
constexpr int64_t kRowsOf = kLanes / J;  // rows of a step of scores

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
// Rows whose weights lie side by side: a step's, and both of a pair.
template <class T, int64_t J>
constexpr int64_t kTogether = kRowsOf<J> == 1 && kPaired<T> ? 2 : kRowsOf<J>;
// Spans end in whole groups of this many rows, and weights of a group's first rows, second rows and so on are summed
// apart: results are the same to the bit however many queries a step has.
constexpr int64_t kRowGroup = kRowsOf<kFour>;

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

// s[r · J + j] += query j · row r for kTwo values from `query` and `row` on, P queries.
template <int64_t J, int64_t P, class T>
C2C_INLINE void add_products(Vec* s, const T* query, int64_t dim, const T* const* row, int64_t at) {
#if defined(__AVX512BF16__)
  if constexpr (sizeof(T) == 2) {
    __m512bh q[P];
#pragma GCC unroll 4
    for (int64_t j = 0; j < P; ++j) q[j] = (__m512bh)_mm512_loadu_si512(query + j * dim);
#pragma GCC unroll 4
    for (int64_t r = 0; r < kRowsOf<J>; ++r) {
      const auto k = (__m512bh)_mm512_loadu_si512(row[r] + at);
#pragma GCC unroll 4
      for (int64_t j = 0; j < P; ++j) s[r * J + j] = (Vec)_mm512_dpbf16_ps((__m512)s[r * J + j], q[j], k);
    }
    return;
  }
#endif
  const auto half = [&](auto h) {
    constexpr int64_t kHalf = decltype(h)::value;
    Vec q[P];
#pragma GCC unroll 4
    for (int64_t j = 0; j < P; ++j) q[j] = half_of<kHalf>(query + j * dim);
#pragma GCC unroll 4
    for (int64_t r = 0; r < kRowsOf<J>; ++r) {
      const Vec k = half_of<kHalf>(row[r] + at);
#pragma GCC unroll 4
      for (int64_t j = 0; j < P; ++j) s[r * J + j] += q[j] * k;
    }
  };
  half(std::integral_constant<int64_t, 0>{});
  half(std::integral_constant<int64_t, 1>{});
}

// Products of J queries and kRowsOf<J> keys each; lane r · J + j is row r and query j. P queries side by side share a
// KV head. `offset`: where their heads begin in a row. D is dim, or 0 for any.
template <int64_t J, int64_t P, int64_t D, class T>
C2C_INLINE Vec dots(const T* query, const T* const* rows, const int64_t* offset, int64_t any, Lines& ahead) {
  const int64_t dim = D > 0 ? D : any;
  Vec s[kLanes] = {};
  const int64_t whole = dim - dim % kTwo, most = dim - dim % kLanes;
#pragma GCC unroll 16
  for (int64_t h = 0; h < J; h += P) {
    const T* q = query + h * dim;
#pragma GCC unroll 4
    for (int64_t i = 0; i < whole; i += kTwo) {
      ahead.ask();
      add_products<J, P>(s + h, q + i, dim, rows, offset[h] + i);
    }
    if (most > whole)
#pragma GCC unroll 16
      for (int64_t r = 0; r < kRowsOf<J>; ++r)
#pragma GCC unroll 4
        for (int64_t j = 0; j < P; ++j)
          s[r * J + h + j] += load(q + j * dim + whole) * load(rows[r] + offset[h] + whole);
  }
  Vec total = sums(s);
  for (int64_t i = most; i < dim; ++i)
    for (int64_t l = 0; l < kLanes; ++l)
      total[l] += wide(query[l % J * dim + i]) * wide(rows[l / J][offset[l % J] + i]);
  return total;
}

// What is the same for all rows of a call.
struct Few {
  int64_t chunks;              // of J queries; those beyond the last have scores that nobody reads
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

// Scores of a span's keys for all queries: scores[step][chunk of J queries].
template <int64_t J, int64_t P, int64_t D, class T>
void score(const Attention& a, const Few& few, const Order<T>& keys, float* scores) {
  for (int64_t r0 = 0; r0 < keys.count; r0 += kRowsOf<J>) {
    const T* rows[kRowsOf<J>];  // the last row again where there are no more
    for (int64_t r = 0; r < kRowsOf<J>; ++r) rows[r] = keys.first + smaller(r0 + r, keys.count - 1) * keys.stride;
    Lines ahead{keys.at(r0 + kRowsAhead), few.key_step};
    const T* query = static_cast<const T*>(a.query);
    for (int64_t c = 0; c < few.chunks; ++c, query += J * a.dim, scores += kLanes)
      store(scores, dots<J, P, D>(query, rows, few.offset + c * J, a.dim, ahead) * a.scale);
  }
}

}  // namespace c2c::C2C_ISA

#endif
