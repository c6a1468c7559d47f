#include "fuser/fast_tower.h"

#include <algorithm>
#include <cmath>

namespace c2c {

bool FastTower::supports(HeadShape sharer, HeadShape receiver, at::ScalarType dtype) {
  return dtype == at::kFloat || (dtype == at::kBFloat16 && sharer.width() % 2 == 0 && receiver.width() % 2 == 0);
}

std::vector<int64_t> FastTower::versions(const TowerTensors& t) {
  std::vector<int64_t> all;
  const auto add = [&](const at::Tensor& x) {
    if (x.defined()) all.push_back(x.is_inference() ? 0 : x._version());
  };
  for (const at::Tensor* x : {&t.in, &t.in_bias, &t.weight, &t.weight_bias, &t.out, &t.out_bias}) add(*x);
  for (const auto* blocks : {&t.shared, &t.scalar, &t.blocks})
    for (const auto& block : *blocks)
      for (const at::Tensor* x : {&block.norm, &block.up, &block.down}) add(*x);
  return all;
}

FastTower::FastTower(const TowerTensors& t, HeadShape sharer, HeadShape receiver, at::ScalarType dtype)
    : sharer_(sharer),
      receiver_(receiver),
      bf16_(dtype == at::kBFloat16),
      hidden_(t.in.size(0)),
      padded_(round_up(hidden_, kBlock)),
      inner_(0),
      shared_(t.shared.size()),
      scalar_(t.scalar.size()),
      blocks_(t.blocks.size()),
      versions_(versions(t)) {
  const Store store = bf16_ ? Store::kBf16 : Store::kFloat;
  packed_.add({{t.in}, {t.in_bias}, false, store}, &in_);
  for (size_t i = 0; i < shared_.size(); ++i) add(t.shared[i], shared_[i]);
  for (size_t i = 0; i < scalar_.size(); ++i) add(t.scalar[i], scalar_[i]);
  for (size_t i = 0; i < blocks_.size(); ++i) add(t.blocks[i], blocks_[i]);
  if (t.weight.defined()) packed_.add({{t.weight}, {t.weight_bias}, false, store}, &weight_);
  packed_.add({{t.out}, {t.out_bias}, false, store}, &out_);
  packed_.pack();
}

void FastTower::add(const TowerTensors::Block& tensors, Block& block) {
  const Store store = bf16_ ? Store::kBf16 : Store::kFloat;
  const at::Tensor norm = tensors.norm.to(at::kFloat).contiguous();
  block.norm.assign(static_cast<size_t>(padded_), 0.0F);
  std::copy_n(norm.const_data_ptr<float>(), hidden_, block.norm.begin());
  packed_.add({{tensors.up}, {}, false, store}, &block.up);
  packed_.add({{tensors.down}, {}, false, store}, &block.down);
  inner_ = std::max(inner_, block.up.outputs());
}

void FastTower::prepare(Workspace& w, size_t slot, const Rows& r, int64_t members) {
  const int64_t item = bf16_ ? 2 : 4, rows = r.count;
  h_ = w.get<float>(slot, rows * padded_ * 4);
  other_ = w.get<float>(slot + 1, rows * padded_ * 4);
  rows_ = w.get<float>(slot + 2, rows * out_.outputs() * 4);
  logits_ = w.get<float>(slot + 3, rows * kBlock * std::max<int64_t>(weight_.blocks, 1) * 4);
  normed_ = w.get(slot + 4, rows * padded_ * item);
  inner_rows_ = w.get(slot + 5, rows * inner_ * item);
  if (r.pieces != nullptr) piece_ = w.get(slot + 6, std::min(rows, kPiece) * sharer_.width() * item);
}

void FastTower::multiply(const Member& m, const Packed& w, const void* x, int64_t stride, int64_t rows, After after,
                         void* out, int64_t out_stride) {
  Product p = w.product();
  p.x = x;
  p.x_stride = stride;
  p.after = after;
  p.out = out;
  p.out_stride = out_stride;
  p.rows = rows;
  const auto [begin, end] = m.share(w.blocks);
  kernels().product(p, begin, end, nullptr);
  m.sync();
}

// h as the rows of a product.
void FastTower::convert(const Member& m, const float* h, int64_t rows) {
  const auto [begin, end] = m.share(rows);
  if (bf16_) {
    kernels().narrow(h + begin * padded_, (end - begin) * padded_, reinterpret_cast<Bf16*>(normed_) + begin * padded_);
  } else {
    std::copy_n(h + begin * padded_, (end - begin) * padded_, reinterpret_cast<float*>(normed_) + begin * padded_);
  }
  m.sync();
}

// h += down · gelu(up · norm(h)).
void FastTower::apply(const Member& m, const Block& block, float* h, int64_t rows) {
  const int64_t item = bf16_ ? 2 : 4;
  const auto [begin, end] = m.share(rows);
  for (int64_t r = begin; r < end; ++r)
    kernels().norm(h + r * padded_, block.norm.data(), 1e-6, hidden_, padded_, normed_ + r * padded_ * item, bf16_);
  m.sync();
  multiply(m, block.up, normed_, padded_, rows, After::kGelu, inner_rows_, inner_);
  multiply(m, block.down, inner_rows_, inner_, rows, After::kAdd, h, padded_);
}

void FastTower::enter(const Member& m, const Rows& r, const void* x, int64_t stride, int64_t first, int64_t rows) {
  Product p = in_.product();
  p.x = x;
  p.x_stride = stride;
  p.in = sharer_.width();
  p.x2 = static_cast<const std::byte*>(r.receiver.const_data_ptr()) + first * r.receiver.stride(0) * (bf16_ ? 2 : 4);
  p.x2_stride = r.receiver.stride(0);
  p.in2 = receiver_.width();
  p.out = h_ + first * padded_;
  p.out_stride = padded_;
  p.rows = rows;
  const auto [begin, end] = m.share(in_.blocks);
  kernels().product(p, begin, end, nullptr);
  m.sync();
}

void FastTower::run(const Member& m, Rows& r) {
  const int64_t rows = r.count;
  const auto [begin, end] = m.share(rows);
  if (r.pieces == nullptr) {
    enter(m, r, r.sharer.const_data_ptr(), r.sharer.stride(0), 0, rows);
  } else {
    const int64_t row_bytes = sharer_.width() * (bf16_ ? 2 : 4);
    for (int64_t first = 0; first < rows; first += kPiece) {
      const int64_t count = std::min(kPiece, rows - first);
      const auto [from, to] = m.share(count);
      r.pieces->copy(r.part, first + from, first + to, bf16_ ? at::kBFloat16 : at::kFloat, piece_ + from * row_bytes);
      m.sync();
      enter(m, r, piece_, sharer_.width(), first, count);
    }
  }
  for (const Block& block : shared_) apply(m, block, h_, rows);
  const int64_t heads = receiver_.kv_heads;
  auto* weight = r.weight.data_ptr<float>();
  if (weight_.blocks > 0) {
    std::copy_n(h_ + begin * padded_, (end - begin) * padded_, other_ + begin * padded_);
    for (const Block& block : scalar_) apply(m, block, other_, rows);
    convert(m, other_, rows);
    multiply(m, weight_, normed_, padded_, rows, After::kStore, logits_, weight_.outputs());
    for (int64_t i = begin; i < end; ++i)
      for (int64_t h = 0; h < heads; ++h)
        weight[i * heads + h] = 1.0F / (1.0F + std::exp(-logits_[i * weight_.outputs() + h]));
  } else {
    std::fill(weight + begin * heads, weight + end * heads, 1.0F);
  }
  m.sync();
  for (const Block& block : blocks_) apply(m, block, h_, rows);
  convert(m, h_, rows);
  multiply(m, out_, normed_, padded_, rows, After::kStore, rows_, out_.outputs());
  const auto type = r.base.scalar_type();
  const int64_t item = static_cast<int64_t>(r.base.element_size());
  for (int64_t i = begin; i < end; ++i)
    kernels().gated(rows_ + i * out_.outputs(),
                    static_cast<const std::byte*>(r.base.const_data_ptr()) + i * r.base.stride(0) * item,
                    weight + i * heads, heads, receiver_.head_dim,
                    static_cast<std::byte*>(r.made.data_ptr()) + i * r.made.stride(0) * item, type == at::kBFloat16);
}

}  // namespace c2c
