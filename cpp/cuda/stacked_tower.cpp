#include "cuda/stacked_tower.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

namespace c2c::cuda {

namespace {

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

int64_t version(const at::Tensor& x) { return x.is_inference() ? 0 : x._version(); }

// Whether two towers have the same parts of the same shapes, and neither is differentiated.
bool alike(const TowerTensors& a, const TowerTensors& b) {
  const auto same = [](const at::Tensor& x, const at::Tensor& y) {
    if (x.defined() != y.defined()) return false;
    return !x.defined() || (x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() && x.device() == y.device() &&
                            !x.requires_grad() && !y.requires_grad());
  };
  const auto block = [&](const TowerTensors::Block& l, const TowerTensors::Block& r) {
    return same(l.norm, r.norm) && same(l.up, r.up) && same(l.down, r.down);
  };
  const auto blocks = [&](const std::vector<TowerTensors::Block>& x, const std::vector<TowerTensors::Block>& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), block);
  };
  return same(a.in, b.in) && same(a.in_bias, b.in_bias) && same(a.weight, b.weight) &&
         same(a.weight_bias, b.weight_bias) && same(a.out, b.out) && same(a.out_bias, b.out_bias) &&
         blocks(a.shared, b.shared) && block(a.scalar, b.scalar) && blocks(a.blocks, b.blocks);
}

// Whether a tower is one that the batch computes: one inner width.
bool regular(const TowerTensors& t) {
  if (t.blocks.empty()) return false;
  const int64_t inner = t.blocks[0].up.size(0);
  const auto wide = [&](const TowerTensors::Block& b) { return b.up.size(0) == inner; };
  return std::all_of(t.shared.begin(), t.shared.end(), wide) && std::all_of(t.blocks.begin(), t.blocks.end(), wide);
}

TowerBatch batch_of(const at::Tensor& x) {
  return {x.data_ptr(), x.stride(0), x.stride(1), x.scalar_type() == at::kBFloat16};
}

// out = x · wᵀ.
void multiply(at::Tensor out, const at::Tensor& x, const at::Tensor& w) { at::bmm_out(out, x, w.transpose(1, 2)); }

}  // namespace

std::shared_ptr<StackedTowers> StackedTowers::make(const Fuser& fuser) {
  if (fuser.dtype != at::kFloat && fuser.dtype != at::kBFloat16) return nullptr;
  std::shared_ptr<StackedTowers> made(new StackedTowers(fuser));
  std::vector<int64_t> receivers;
  TowerTensors first, other;
  for (size_t i = 0; i < fuser.layers.size(); ++i) {
    const Projector& projector = *fuser.layers[i].projector;
    for (int64_t part = 0; part < 2; ++part) {
      if (!(part == 0 ? projector.key_open() : projector.value_open())) continue;
      TowerTensors& tower = made->members_.empty() ? first : other;
      if (!projector.tower(part, tower) || !regular(tower) || !alike(first, tower)) return nullptr;
      made->members_.push_back({i, part});
      if (receivers.empty() || receivers.back() != static_cast<int64_t>(i))
        receivers.push_back(static_cast<int64_t>(i));
    }
  }
  if (made->members_.empty()) return made;
  if (first.in.scalar_type() != fuser.dtype || first.in.device() != fuser.device) return nullptr;
  // A layer that is fused twice sees its own first result.
  for (int64_t& i : receivers) i = fuser.layers[static_cast<size_t>(i)].receiver_layer;
  std::sort(receivers.begin(), receivers.end());
  if (std::adjacent_find(receivers.begin(), receivers.end()) != receivers.end()) return nullptr;
  made->allocate(first, fuser.device);
  first = {};
  for (size_t i = 0; i < made->members_.size(); ++i) {
    const Member m = made->members_[i];
    Projector& projector = *fuser.layers[m.layer].projector;
    TowerTensors tower;
    projector.tower(m.part, tower);
    made->take(static_cast<int64_t>(i), tower);
    projector.replace_tower(m.part, tower);
  }
  for (const at::Tensor* x : {&made->in_, &made->out_, &made->matrix_, &made->norms_}) made->watch(*x);
  for (const auto* all : {&made->up_, &made->down_})
    for (const at::Tensor& x : *all) made->watch(x);
  return made;
}

void StackedTowers::watch(const at::Tensor& weight) {
  if (!weight.defined()) return;
  watched_.push_back(weight);
  versions_.push_back(version(weight));
}

bool StackedTowers::fits() const {
  for (size_t i = 0; i < watched_.size(); ++i)
    if (version(watched_[i]) != versions_[i]) return false;
  return true;
}

std::vector<int64_t> StackedTowers::layers(const Fuser& fuser, bool receiver) const {
  std::vector<int64_t> all;
  for (const Member& m : members_)
    all.push_back(receiver ? fuser.layers[m.layer].receiver_layer : fuser.layers[m.layer].sharer_layer);
  return all;
}

int64_t StackedTowers::bytes() const {
  int64_t sum = 0;
  for (const at::Tensor* x : {&in_, &out_, &out_bias_, &matrix_, &matrix_bias_})
    if (x->defined()) sum += static_cast<int64_t>(x->nbytes());
  for (const auto* all : {&up_, &down_})
    for (const at::Tensor& x : *all) sum += static_cast<int64_t>(x.nbytes());
  return sum;
}

std::vector<StackedTowers::Shape> StackedTowers::products() const {
  std::vector<Shape> all;
  const auto add = [&](const at::Tensor& weight) { all.push_back({weight.size(2), weight.size(1)}); };
  if (members_.empty()) return all;
  add(in_);
  for (const auto* list : {&up_, &down_})
    for (const at::Tensor& weight : *list) add(weight);
  add(out_);
  return all;
}

void StackedTowers::allocate(const TowerTensors& like, at::Device device) {
  const auto n = static_cast<int64_t>(members_.size());
  hidden_ = like.in.size(0);
  inner_ = like.blocks[0].up.size(0);
  scalar_ = like.weight.defined() ? like.scalar.up.size(0) : 0;
  columns_ = round_up(like.in.size(1) + 1, 8);
  shared_ = like.shared.size();
  const auto options = at::TensorOptions().dtype(dtype_).device(device);
  const size_t blocks = shared_ + like.blocks.size();
  in_ = at::zeros({n, hidden_, columns_}, options);
  for (size_t b = 0; b < blocks; ++b) {
    up_.push_back(at::empty({n, inner_ + (b == shared_ ? scalar_ : 0), hidden_}, options));
    if (b + 1 < blocks) down_.push_back(at::empty({n, hidden_, inner_}, options));
  }
  out_ = at::empty({n, receiver_.width(), hidden_ + inner_}, options);
  out_bias_ = at::empty({n, receiver_.width()}, options.dtype(at::kFloat));
  norms_ = at::ones({n, static_cast<int64_t>(blocks) + (scalar_ > 0 ? 1 : 0), hidden_}, options);
  if (scalar_ == 0) return;
  const int64_t padded = round_up(receiver_.kv_heads, kHeadGroup);
  matrix_ = at::zeros({n, padded, hidden_ + scalar_}, options);
  matrix_bias_ = at::zeros({n, padded}, options.dtype(at::kFloat));
}

void StackedTowers::take(int64_t index, TowerTensors& t) {
  // Puts a weight in its place, where it is read from now on.
  const auto put = [](at::Tensor place, at::Tensor& weight) {
    place.copy_(weight);
    weight = place;
  };
  int64_t norm = 0;
  const auto put_up = [&](at::Tensor place, TowerTensors::Block& block) {
    place.copy_(block.up.to(at::kFloat) * block.norm.to(at::kFloat));
    block.up = place;
    block.norm = norms_.select(0, index).select(0, norm++);
  };
  const auto product = [](const at::Tensor& a, const at::Tensor& b) {
    return at::matmul(a.to(at::kFloat), b.to(at::kFloat));
  };
  const at::Tensor in = in_.select(0, index), out = out_.select(0, index);
  const int64_t width = t.in.size(1);
  put(in.narrow(1, 0, width), t.in);
  put(in.select(1, width), t.in_bias);
  std::vector<TowerTensors::Block*> blocks;
  for (auto* list : {&t.shared, &t.blocks})
    for (TowerTensors::Block& block : *list) blocks.push_back(&block);
  for (size_t b = 0; b < blocks.size(); ++b) {
    const at::Tensor up = up_[b].select(0, index);
    put_up(up.narrow(0, 0, inner_), *blocks[b]);
    if (b < down_.size()) put(down_[b].select(0, index), blocks[b]->down);
    if (b == shared_ && scalar_ > 0) put_up(up.narrow(0, inner_, scalar_), t.scalar);
  }
  out.narrow(1, hidden_, inner_).copy_(product(t.out, t.blocks.back().down));
  put(out.narrow(1, 0, hidden_), t.out);
  out_bias_.select(0, index).copy_(t.out_bias);
  watch(t.blocks.back().down);
  watch(t.out_bias);
  if (scalar_ == 0) return;
  const at::Tensor matrix = matrix_.select(0, index).narrow(0, 0, receiver_.kv_heads);
  matrix.narrow(1, hidden_, scalar_).copy_(product(t.weight, t.scalar.down));
  put(matrix.narrow(1, 0, hidden_), t.weight);
  matrix_bias_.select(0, index).narrow(0, 0, receiver_.kv_heads).copy_(t.weight_bias);
  watch(t.scalar.down);
  watch(t.weight_bias);
}

int64_t StackedTowers::fitting(int64_t rows) const {
  // As many as keep the products large; on an H100 28 towers of 1,024 were faster than fewer from 256 rows on, although
  // what a step reads and writes then exceeds the device's cache. Of very long prompts only as many as kWorkspace
  // holds.
  constexpr int64_t kFull = 28, kWorkspace = int64_t{1} << 30;
  int device = 0, cache = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, device));
  const int64_t tower = rows * (columns_ + row()) * static_cast<int64_t>(c10::elementSize(dtype_));
  return std::max({int64_t{1}, std::min(kFull, kWorkspace / tower), int64_t{cache} * 3 / 2 / tower});
}

at::Tensor StackedTowers::project(const Places& sharer, const Places& receiver, const Places& to, int64_t rows,
                                  int64_t at_once) const {
  const auto n = static_cast<int64_t>(members_.size());
  at_once = std::clamp<int64_t>(at_once > 0 ? at_once : fitting(rows), 1, std::min(n, kMostTowers));
  const int64_t batches = (n + at_once - 1) / at_once, most = (n + batches - 1) / batches;
  const at::Tensor x = at::empty({most, rows, columns_}, in_.options());
  const at::Tensor h = at::empty({most, rows, row()}, in_.options());
  const at::Tensor weights =
      scalar_ > 0 ? at::empty({n, rows, receiver_.kv_heads}, in_.options().dtype(at::kFloat)) : at::Tensor();
  for (int64_t first = 0; first < n; first += most) {
    const int64_t count = std::min(most, n - first);
    batch(sharer, receiver, to, first, x.narrow(0, 0, count), h.narrow(0, 0, count), weights);
  }
  return weights;
}

void StackedTowers::batch(const Places& sharer, const Places& receiver, const Places& to, int64_t first, at::Tensor x,
                          const at::Tensor& h, const at::Tensor& weights) const {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const int64_t count = x.size(0), rows = x.size(1), item = static_cast<int64_t>(x.element_size());
  const auto part = [&](const at::Tensor& weight) { return weight.narrow(0, first, count); };
  const auto at_row = [&](int64_t row, int64_t column) {
    TowerBatch batch = batch_of(x);
    batch.at = static_cast<std::byte*>(batch.at) + (row * batch.row + column) * item;
    return batch;
  };
  const int64_t from_sharer = sharer_.width(), width = receiver_.width();
  for (const Places::Run& run : sharer.runs)
    gather_rows(tower_rows(sharer, run, members_, first, count), at_row(run.at, 0), from_sharer, 0, count, run.count,
                stream);
  for (const Places::Run& run : receiver.runs)
    gather_rows(tower_rows(receiver, run, members_, first, count), at_row(run.at, from_sharer), width,
                columns_ - from_sharer - width, count, run.count, stream);

  at::Tensor hidden = h.narrow(2, 0, hidden_), inner = h.narrow(2, hidden_, inner_);
  multiply(hidden, x, part(in_));
  float* weight = scalar_ > 0 ? weights.data_ptr<float>() + first * weights.stride(0) : nullptr;
  const int64_t weights_tower = scalar_ > 0 ? weights.stride(0) : 0;
  for (size_t b = 0; b < up_.size(); ++b) {
    multiply(h.narrow(2, hidden_, up_[b].size(1)), hidden, part(up_[b]));
    if (b == shared_ && scalar_ > 0) {
      const at::Tensor matrix = part(matrix_), bias = part(matrix_bias_);
      norm_gelu_weigh(batch_of(h),
                      {.hidden = hidden_,
                       .inner = inner_,
                       .scalar = scalar_,
                       .matrix = matrix.const_data_ptr(),
                       .bias = bias.const_data_ptr<float>(),
                       .heads = receiver_.kv_heads,
                       .weights = weight,
                       .weights_tower = weights_tower},
                      count, rows, stream);
    } else {
      norm_gelu(batch_of(h), hidden_, inner_, count, rows, stream);
    }
    if (b < down_.size()) at::baddbmm_out(hidden, hidden, inner, part(down_[b]).transpose(1, 2));
  }
  // The input rows are read for the last time: the projection takes their place.
  multiply(x.narrow(2, 0, width), h.narrow(2, 0, hidden_ + inner_), part(out_));
  const at::Tensor bias = part(out_bias_);
  for (const Places::Run& run : to.runs) {
    const GatedAdd add{.rows = at_row(run.at, 0),
                       .bias = bias.const_data_ptr<float>(),
                       .weights = weight == nullptr ? nullptr : weight + run.at * receiver_.kv_heads,
                       .weights_tower = weights_tower,
                       .heads = receiver_.kv_heads,
                       .dim = receiver_.head_dim};
    gated_add(add, tower_rows(to, run, members_, first, count), count, run.count, stream);
  }
}

}  // namespace c2c::cuda
