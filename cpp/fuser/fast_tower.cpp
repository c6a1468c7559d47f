#include "fuser/fast_tower.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "weights/mapping.h"

namespace c2c {

bool FastTower::supports(HeadShape sharer, HeadShape receiver, at::ScalarType dtype) {
  return dtype == at::kFloat || (dtype == at::kBFloat16 && sharer.width() % 2 == 0 && receiver.width() % 2 == 0);
}

std::vector<int64_t> FastTower::versions(const TowerTensors& t) {
  std::vector<int64_t> all;
  const auto add = [&](const at::Tensor& x) {
    if (x.defined()) all.push_back(x.is_inference() ? 0 : x._version());
  };
  const auto add_block = [&](const TowerTensors::Block& block) {
    for (const at::Tensor* x : {&block.norm, &block.up, &block.down}) add(*x);
  };
  for (const at::Tensor* x : {&t.in, &t.in_bias, &t.weight, &t.weight_bias, &t.out, &t.out_bias}) add(*x);
  for (const auto* blocks : {&t.shared, &t.blocks}) std::for_each(blocks->begin(), blocks->end(), add_block);
  add_block(t.scalar);
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
      blocks_(t.blocks.size()),
      versions_(versions(t)) {
  const Store store = bf16_ ? Store::kBf16 : Store::kFloat;
  packed_.add({{t.in}, {t.in_bias}, false, store}, &in_);
  for (size_t i = 0; i < shared_.size(); ++i) add(t.shared[i], shared_[i]);
  for (size_t i = 0; i < blocks_.size(); ++i) add(t.blocks[i], blocks_[i]);
  if (t.weight.defined()) {
    add({t.scalar.norm, t.scalar.up, {}}, scalar_);
    const at::Tensor weight = t.weight.to(at::kFloat);
    const at::Tensor of_inner = at::matmul(weight, t.scalar.down.to(at::kFloat));
    const at::Tensor padding = at::zeros({weight.size(0), padded_ - hidden_}, at::kFloat);
    packed_.add({{at::cat({weight, padding, of_inner}, 1)}, {t.weight_bias}, false, store}, &weight_);
    for (const at::Tensor* read : {&t.weight, &t.scalar.down}) drop_pages(*read);
  }
  packed_.add({{t.out}, {t.out_bias}, false, store}, &out_);
  packed_.pack();
}

void FastTower::add(const TowerTensors::Block& tensors, Block& block) {
  const Store store = bf16_ ? Store::kBf16 : Store::kFloat;
  const at::Tensor norm = tensors.norm.to(at::kFloat).contiguous();
  block.norm.assign(static_cast<size_t>(padded_), 0.0F);
  std::copy_n(norm.const_data_ptr<float>(), hidden_, block.norm.begin());
  packed_.add({{tensors.up}, {}, false, store}, &block.up);
  if (tensors.down.defined()) packed_.add({{tensors.down}, {}, false, store}, &block.down);
  inner_ = std::max(inner_, block.up.outputs());
}

void FastTower::prepare(Workspace& w, size_t slot, const Rows& r, int64_t members) {
  const int64_t item = bf16_ ? 2 : 4, rows = r.count;
  h_ = w.get<float>(slot, rows * padded_ * 4);
  rows_ = w.get<float>(slot + 1, rows * out_.outputs() * 4);
  normed_ = w.get(slot + 2, rows * padded_ * item);
  inner_rows_ = w.get(slot + 3, rows * inner_ * item);
  if (r.pieces != nullptr) piece_ = w.get(slot + 4, std::min(rows, kPiece) * sharer_.width() * item);
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

// h as the rows of a product. Where they are narrowed for it, only this member's share is there.
const std::byte* FastTower::plain(const Member& m, int64_t rows) {
  if (!bf16_) return reinterpret_cast<const std::byte*>(h_);
  const auto [begin, end] = m.share(rows);
  kernels().narrow(h_ + begin * padded_, (end - begin) * padded_, reinterpret_cast<Bf16*>(normed_) + begin * padded_);
  return normed_;
}

// The block's inner rows, gelu(up · norm(h)).
void FastTower::expand(const Member& m, const Block& block, int64_t rows) {
  const int64_t item = bf16_ ? 2 : 4;
  const auto [begin, end] = m.share(rows);
  for (int64_t r = begin; r < end; ++r)
    kernels().norm(h_ + r * padded_, block.norm.data(), 1e-6, hidden_, padded_, normed_ + r * padded_ * item, bf16_);
  m.sync();
  multiply(m, block.up, normed_, padded_, rows, After::kGelu, inner_rows_, inner_);
}

// h += down · inner rows.
void FastTower::apply(const Member& m, const Block& block, int64_t rows) {
  expand(m, block, rows);
  multiply(m, block.down, inner_rows_, inner_, rows, After::kAdd, h_, padded_);
}

// The weights of this member's share of the rows.
void FastTower::weigh(const Member& m, float* weight, int64_t rows) {
  const auto [begin, end] = m.share(rows);
  const int64_t heads = receiver_.kv_heads;
  if (weight_.blocks == 0) {
    std::fill(weight + begin * heads, weight + end * heads, 1.0F);
    return;
  }
  expand(m, scalar_, rows);
  const int64_t item = bf16_ ? 2 : 4;
  Product p = weight_.product();
  p.outputs = heads;
  p.x = plain(m, rows) + begin * padded_ * item;
  p.x_stride = p.in = padded_;
  p.x2 = inner_rows_ + begin * inner_ * item;
  p.x2_stride = inner_;
  p.in2 = weight_.in - padded_;
  p.out = weight + begin * heads;
  p.out_stride = heads;
  p.rows = end - begin;
  kernels().product(p, 0, weight_.blocks, nullptr);
  for (int64_t i = begin * heads; i < end * heads; ++i) weight[i] = 1.0F / (1.0F + std::exp(-weight[i]));
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
  for (const Block& block : shared_) apply(m, block, rows);
  const int64_t heads = receiver_.kv_heads;
  auto* weight = r.weight.data_ptr<float>();
  weigh(m, weight, rows);
  for (const Block& block : blocks_) apply(m, block, rows);
  const std::byte* x = plain(m, rows);
  if (bf16_) m.sync();
  multiply(m, out_, x, padded_, rows, After::kStore, rows_, out_.outputs());
  const auto type = r.base.scalar_type();
  const int64_t item = static_cast<int64_t>(r.base.element_size());
  for (int64_t i = begin; i < end; ++i)
    kernels().gated(rows_ + i * out_.outputs(),
                    static_cast<const std::byte*>(r.base.const_data_ptr()) + i * r.base.stride(0) * item,
                    weight + i * heads, heads, receiver_.head_dim,
                    static_cast<std::byte*>(r.made.data_ptr()) + i * r.made.stride(0) * item, type == at::kBFloat16);
}

}  // namespace c2c
