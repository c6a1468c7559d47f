// What becomes of a block's sums.
#ifndef KERNEL

namespace c2c::C2C_ISA {

template <class T>
C2C_INLINE void write_row(T* out, const float* sums, int64_t count, Vec (*map)(Vec)) {
  int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes) store(out + c, map ? map(load(sums + c)) : load(sums + c));
  for (; c < count; ++c) {
    const Vec one = spread(sums[c]);
    put(out + c, (map ? map(one) : one)[0]);
  }
}

template <class T>
C2C_INLINE void write_gated(T* out, const float* sums, int64_t count, Vec (*map)(Vec)) {
  for (int64_t c = 0; c < kBlock / 2; c += kLanes) {
    const Vec value = map(load(sums + c)) * load(sums + kBlock / 2 + c);
    if (c + kLanes <= count) {
      store(out + c, value);
    } else {
      for (int64_t i = 0; c + i < count && i < kLanes; ++i) put(out + c + i, value[i]);
    }
  }
}

// Asks for what sums will be added to, which lies further away than the weights: it arrives while they are multiplied.
C2C_INLINE void expect(const Product& p, int64_t block, int64_t row, int64_t rows) {
  if (p.after != After::kAdd) return;
  const float* out = static_cast<const float*>(p.out) + row * p.out_stride + block * kBlock;
  for (int64_t r = 0; r < rows; ++r, out += p.out_stride)
    for (int64_t c = 0; c < kBlock; c += 16) __builtin_prefetch(out + c, 1);
}

// Rows' type T; sums of `rows` rows of one block.
template <class T>
inline void finish(const Product& p, int64_t block, int64_t row, int64_t rows, const float* sums) {
  const bool gated = p.after >= After::kGateSilu;
  const int64_t first = gated ? block * kBlock / 2 : block * kBlock;
  const int64_t count = smaller(p.outputs - first, gated ? kBlock / 2 : kBlock);
  for (int64_t r = 0; r < rows; ++r, sums += kBlock) {
    const int64_t at = (row + r) * p.out_stride + first;
    float* plain = static_cast<float*>(p.out) + at;
    T* typed = static_cast<T*>(p.out) + at;
    switch (p.after) {
      case After::kStore:
        write_row(plain, sums, count, nullptr);
        break;
      case After::kAdd: {
        int64_t c = 0;
        for (; c + kLanes <= count; c += kLanes) store(plain + c, load(plain + c) + load(sums + c));
        for (; c < count; ++c) plain[c] += sums[c];
        break;
      }
      case After::kStoreRow:
        write_row(typed, sums, count, nullptr);
        break;
      case After::kGelu:
        write_row(typed, sums, count, gelu);
        break;
      case After::kGateSilu:
        write_gated(typed, sums, count, silu);
        break;
      case After::kGateGelu:
        write_gated(typed, sums, count, gelu);
        break;
      case After::kGateGeluTanh:
        write_gated(typed, sums, count, gelu_tanh);
        break;
    }
  }
}

}  // namespace c2c::C2C_ISA

#endif
