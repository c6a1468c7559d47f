// Attention of many queries by blocked products over packed keys and values.
#ifdef KERNEL

// One query head and a tile of queries.
KERNEL(attend_tile, const TileAttention&)

#else

namespace c2c::C2C_ISA {

// Turns the scores of `seen` keys into weights, 2^(unit · score − top), and what is behind them up to `padded` into
// zeros. Moves `top` up and scales what was summed before.
template <class T>
void soften(float* scores, int64_t seen, int64_t padded, float unit, float* top, float* mass, float* out, int64_t dim,
            T* weights) {
  if (seen < 0) seen = 0;
  const int64_t filled = round_up(seen, kLanes);  // up to whole vectors
  for (int64_t k = seen; k < filled; ++k) scores[k] = -__builtin_inff();
  Vec tops = spread(-__builtin_inff());
  for (int64_t k = 0; k < filled; k += kLanes) tops = larger(tops, load(scores + k));
  const float most = unit * largest(tops);
  int64_t k = 0;
  if (filled > 0 && most != -__builtin_inff()) {
    if (most > *top) {
      if (*mass > 0) {
        const float shrink = fraction_of_one(spread(*top - most))[0];
        int64_t d = 0;
        for (; d + kLanes <= dim; d += kLanes) store(out + d, load(out + d) * shrink);
        for (; d < dim; ++d) out[d] *= shrink;
        *mass *= shrink;
      }
      *top = most;
    }
    Vec sums{};
    for (; k < filled; k += kLanes) {
      // The largest score's own product is not rounded here as in `top`: where scores are huge, it could be far above.
      const Vec e = fraction_of_one(at_most(0.0F, load(scores + k) * unit - *top));
      store(weights + k, e);
      sums += e;
    }
    *mass += sum(sums);
  }
  for (; k < padded; ++k) put(weights + k, 0.0F);
}

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
  const float unit = a.scale * 1.44269504F;  // powers of two, not of e
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
      if (a.positions)
        for (int64_t k = 0; k < seen; ++k)
          if (int64_t{a.positions[a.first + r]} - int64_t{a.positions[k0 + k]} >= a.window) own[k] = -__builtin_inff();
      soften(own, seen, padded, unit, top + r, mass + r, out + r * width, a.dim, weights + r * kTileKeys);
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
