#include "model/fast_pass.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tanh.h>

#include <algorithm>
#include <cmath>

namespace c2c {

namespace {

// Rows up to which each thread norms all of them.
constexpr int64_t kFew = 4;
// Products of a layer: inputs, output, gate and up, down.
constexpr size_t kProducts = 4;

enum Slot : size_t {
  kX,
  kInputs,
  kTurns,
  kMiddle,
  kPartial,
  kNormed,
  kQuery,
  kAttended,
  kNarrow,
  kActivated,
  kScratch,
  kKeys,
  kValues
};

}  // namespace

Pass::Pass(FastDecoder& model, std::vector<Request>& requests, const Batch& batch, const CancelFlag& cancel)
    : model_(model), spec_(model.spec_), requests_(requests), batch_(batch), cancel_(cancel), k_(kernels()) {
  const FastDecoder::Block& b = model.blocks_[0];
  rows_ = batch.rows();
  team_ = at::get_num_threads();
  hidden_ = round_up(spec_.hidden, kBlock);
  queries_ = round_up(spec_.heads * spec_.head_dim, kBlock);
  values_ = round_up(spec_.kv_heads * spec_.head_dim, kBlock);
  key_at_ = queries_;
  value_at_ = queries_ + values_;
  inner_ = round_up(spec_.intermediate, kBlock);
  width_ = b.inputs.outputs();
  item_ = model.narrow_rows_ ? 2 : 4;
  cache_item_ = model.dtype_ == at::kBFloat16 ? 2 : 4;
  products_ = (model.blocks_.size() * kProducts + 1 + 7) / 8 * 8;
  taken_ = std::vector<std::atomic<int64_t>>(static_cast<size_t>(team_) * products_);
  few_ = rows_ <= kFew;
  single_ = std::all_of(batch.shares.begin(), batch.shares.end(), [](const Share& s) { return s.rows <= 1; });
  int64_t seen = 0, many = 0;
  for (size_t n = 0; n < requests.size(); ++n) {
    const Share& share = batch.shares[n];
    seen = std::max(seen, share.past + share.rows);
    if (share.rows > kFew) many = std::max(many, share.past + share.rows);
  }
  wanted_ = wanted_rows(requests, batch);
  // Where one row, or each of a few, is work for several threads, they cut what it sees; a short sight or numbers that
  // do not go up are cut by heads, as long as there are heads enough.
  const bool even = team_ % std::max<int64_t>(rows_, 1) == 0, enough = rows_ * spec_.kv_heads >= team_;
  if (single_ && rows_ > 0 && rows_ < team_ && seen >= 256 && (even || !enough)) splits_ = (team_ + rows_ - 1) / rows_;

  Workspace& w = model.workspace_;
  const int64_t private_rows = few_ ? rows_ * team_ : rows_;
  x_ = w.get<float>(kX, rows_ * hidden_ * 4);
  inputs_ = w.get<float>(kInputs, rows_ * width_ * 4);
  turns_ = w.get<float>(kTurns, static_cast<int64_t>(spec_.ropes.size()) * rows_ * spec_.head_dim * 4);
  middle_ = w.get<float>(kMiddle, (spec_.post_norms ? rows_ * hidden_ + team_ * hidden_ : 1) * 4);
  const int64_t parts = splits_ > 1 ? rows_ * splits_ : team_;
  partial_ = w.get<float>(kPartial, parts * spec_.heads * (spec_.head_dim + 2) * 4);
  normed_ = w.get(kNormed, private_rows * std::max(hidden_, inner_) * item_);
  query_ = w.get(kQuery, (rows_ * queries_ + 3 * spec_.head_dim) * cache_item_);
  attended_ = w.get(kAttended, rows_ * queries_ * cache_item_);
  narrow_ = item_ == cache_item_ ? attended_ : w.get(kNarrow, rows_ * queries_ * item_);
  activated_ = w.get(kActivated, rows_ * inner_ * item_);
  const auto need = [](const Packed& p) { return product_scratch(p.store, p.in); };
  scratch_size_ = std::max({need(b.inputs), need(b.output), need(b.down), need(model.head_)});
  if (many > 0)
    scratch_size_ = std::max({scratch_size_, tile_scratch(spec_.head_dim), 2 * kBlock * spec_.head_dim * cache_item_});
  scratch_size_ = round_up(scratch_size_, 64);
  scratch_ = w.get(kScratch, scratch_size_ * team_);
  const Store kind = cache_item_ == 2 ? Store::kBf16 : Store::kFloat;
  const int64_t dims = (spec_.head_dim + kBlock - 1) / kBlock, blocks = (many + kBlock - 1) / kBlock;
  keys_ = w.get(kKeys, spec_.kv_heads * blocks * block_bytes(kind, spec_.head_dim));
  values_packed_ = w.get(kValues, spec_.kv_heads * dims * block_bytes(kind, many));
  views_.resize(requests.size());
  for (size_t n = 0; n < requests.size(); ++n)
    views_[n].slices = requests[n].cache->slices(0, batch.shares[n].past + batch.shares[n].rows);
  if (!wanted_.empty()) logits_ = at::empty({static_cast<int64_t>(wanted_.size()), spec_.vocab}, at::kFloat);
}

at::Tensor Pass::run() {
  run_team(team_, [this](const Member& m) { walk(m); });
  if (stop_) throw Cancelled();
  if (logits_.defined() && spec_.logit_softcap > 0)
    logits_ = at::tanh(logits_ / spec_.logit_softcap) * spec_.logit_softcap;
  return logits_;
}

void Pass::walk(const Member& m) {
  start(m);
  for (size_t i = 0; i < model_.blocks_.size(); ++i) {
    const FastDecoder::Block& block = model_.blocks_[i];
    if (m.index == 0) {
      view(i);
      if (cancel_ && cancel_->load(std::memory_order_relaxed)) stop_ = true;
    }
    m.sync(lead(m, block.inputs));
    if (stop_) return;
    const bool output = batch_.any_logits || i + 1 < model_.blocks_.size();
    const std::byte* rows = normed(m, block.input_norm);
    multiply(m, i * kProducts, block.inputs, rows, hidden_, After::kStore, inputs_, width_,
             output ? 0 : queries_ / kBlock, batch_.all_given ? queries_ / kBlock : 0);
    m.sync();
    attention(m, i);
    if (!output) continue;
    m.sync(lead(m, block.output));
    if (narrow_ != attended_) {
      const auto [begin, end] = m.share(rows_);
      k_.narrow(reinterpret_cast<const float*>(attended_) + begin * queries_, (end - begin) * queries_,
                reinterpret_cast<Bf16*>(narrow_) + begin * queries_);
      m.sync();
    }
    if (spec_.post_norms) {
      multiply(m, i * kProducts + 1, block.output, narrow_, queries_, After::kStore, middle_, hidden_);
      m.sync();
      add_normed(m, block.attention_norm);
    } else {
      multiply(m, i * kProducts + 1, block.output, narrow_, queries_, After::kAdd, x_, hidden_);
    }
    m.sync(lead(m, block.gate_up));
    feed_forward(m, i);
  }
  if (wanted_.empty()) return;
  m.sync(lead(m, model_.head_));
  finish(m);
}

void Pass::start(const Member& m) {
  const auto [begin, end] = m.share(rows_);
  const float scale = model_.dtype_ == at::kBFloat16
                          ? static_cast<float>(c10::BFloat16(static_cast<float>(spec_.embedding_scale)))
                          : static_cast<float>(spec_.embedding_scale);
  const int64_t half = spec_.head_dim / 2;
  for (int64_t r = begin; r < end; ++r) {
    float* x = x_ + r * hidden_;
    const auto token = static_cast<int64_t>(batch_.tokens[static_cast<size_t>(r)]);
    const auto* from = static_cast<const std::byte*>(model_.embedding_.const_data_ptr());
    if (model_.embedding_.scalar_type() == at::kBFloat16) {
      k_.widen(reinterpret_cast<const Bf16*>(from) + token * spec_.hidden, spec_.hidden, x);
    } else {
      std::copy_n(reinterpret_cast<const float*>(from) + token * spec_.hidden, spec_.hidden, x);
    }
    if (scale != 1) std::transform(x, x + spec_.hidden, x, [&](float v) { return v * scale; });
    for (size_t rope = 0; rope < spec_.ropes.size(); ++rope) {
      float* cos = turns_ + (static_cast<int64_t>(rope) * rows_ + r) * spec_.head_dim;
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(batch_.positions[static_cast<size_t>(r)]) *
                            static_cast<float>(spec_.ropes[rope][static_cast<size_t>(i)]);
        cos[i] = std::cos(angle);
        cos[half + i] = std::sin(angle);
      }
    }
  }
}

// Where the rows lie is the same in every layer, so the segments are looked up once a pass, and here only pointers
// move.
void Pass::view(size_t layer) {
  const auto at = static_cast<int64_t>(layer);
  for (size_t n = 0; n < requests_.size(); ++n) {
    const Share& share = batch_.shares[n];
    View& v = views_[n];
    v.stride = spec_.kv_heads * spec_.head_dim;
    v.runs.clear();
    v.copies.clear();
    for (const Slice& s : v.slices) {
      const Block& block = *requests_[n].cache->segments()[s.segment].block;
      const auto rows = [&](int64_t part) {
        if (!block.stored()) {
          const at::Tensor& arena = block.arena();
          const int64_t offset = at * arena.stride(0) + part * arena.stride(1) + s.start * v.stride;
          return static_cast<std::byte*>(arena.data_ptr()) + offset * cache_item_;
        }
        v.copies.push_back(block.rows(at, part, s.start, s.end));
        return static_cast<std::byte*>(v.copies.back().data_ptr());
      };
      std::byte *keys = rows(0), *values = rows(1);
      v.runs.push_back({keys, values, v.stride, s.end - s.start});
      // New rows lie together at the end of the last segment.
      if (!requests_[n].given && s.at <= share.past) {
        v.keys = keys + (share.past - s.at) * v.stride * cache_item_;
        v.values = values + (share.past - s.at) * v.stride * cache_item_;
      }
    }
  }
}

const std::byte* Pass::normed(const Member& m, const FastDecoder::Norm& weight) {
  std::byte* out = normed_ + (few_ ? m.index * rows_ * hidden_ * item_ : 0);
  const auto [begin, end] = few_ ? std::pair{int64_t{0}, rows_} : m.share(rows_);
  for (int64_t r = begin; r < end; ++r)
    k_.norm(x_ + r * hidden_, weight.data(), spec_.norm_eps, spec_.hidden, hidden_, out + r * hidden_ * item_,
            item_ == 2);
  if (!few_) m.sync();
  return out;
}

void Pass::add_normed(const Member& m, const FastDecoder::Norm& weight) {
  float* unit = middle_ + rows_ * hidden_ + m.index * hidden_;
  const auto [begin, end] = m.share(rows_);
  for (int64_t r = begin; r < end; ++r) {
    k_.norm(middle_ + r * hidden_, weight.data(), spec_.norm_eps, spec_.hidden, hidden_, unit, false);
    float* x = x_ + r * hidden_;
    for (int64_t i = 0; i < spec_.hidden; ++i) x[i] += unit[i];
  }
}

// The first of the weights that a member will read, for few rows: many wait for their products, not for memory.
Lead Pass::lead(const Member& m, const Packed& w) const {
  constexpr int64_t kLead = int64_t{128} << 10;
  if (!few_) return {};
  const auto [first, last] = m.share(w.blocks);
  const int64_t bytes = block_bytes(w.store, w.in);
  return {w.data + first * bytes, std::min((last - first) * bytes, kLead)};
}

void Pass::multiply(const Member& m, size_t number, const Packed& w, const std::byte* rows, int64_t stride, After after,
                    void* out, int64_t out_stride, int64_t begin, int64_t end) {
  Product p = w.product();
  p.x = rows;
  p.x_stride = stride;
  p.after = after;
  p.out = out;
  p.out_stride = out_stride;
  p.outputs = after >= After::kGateSilu ? w.outputs() / 2 : w.outputs();
  p.rows = rows_;
  encode(m, p);
  deal(m, number, p, begin, end == 0 ? w.blocks : end);
}

// Few rows become codes for quantised weights, in each thread's own memory, which is shorter than waiting for others.
void Pass::encode(const Member& m, Product& p) {
  if (!is_quantised(p.store) || p.rows > kCodedRows) return;
  auto* codes = reinterpret_cast<RowCodes*>(scratch_ + m.index * scratch_size_);
  k_.encode(static_cast<const Bf16*>(p.x), p.x_stride, p.rows, padded_inputs(p.store, p.in), codes);
  p.codes = codes;
}

// Each thread takes block after block of its own share, one stream of memory, and then of what others have left: a core
// that is slower for a while does not hold up the rest.
void Pass::deal(const Member& m, size_t number, const Product& p, int64_t begin, int64_t end) {
  for (int n = 0; n < m.size; ++n) {
    const int owner = (m.index + n) % m.size;
    const auto [first, last] = Member{owner, m.size, nullptr}.share(end - begin);
    std::atomic<int64_t>& taken = taken_[static_cast<size_t>(owner) * products_ + number];
    while (true) {
      const int64_t block = begin + first + taken.fetch_add(1, std::memory_order_relaxed);
      if (block >= begin + last) break;
      k_.product(p, block, block + 1, scratch_ + m.index * scratch_size_);
    }
  }
}

void Pass::feed_forward(const Member& m, size_t layer) {
  const FastDecoder::Block& block = model_.blocks_[layer];
  const std::byte* rows = normed(m, spec_.post_norms ? block.feed_norm : block.attention_norm);
  const After gate = spec_.activation == Activation::kSilu   ? After::kGateSilu
                     : spec_.activation == Activation::kGelu ? After::kGateGelu
                                                             : After::kGateGeluTanh;
  multiply(m, layer * kProducts + 2, block.gate_up, rows, hidden_, gate, activated_, inner_);
  m.sync(lead(m, block.down));
  if (!spec_.post_norms)
    return multiply(m, layer * kProducts + 3, block.down, activated_, inner_, After::kAdd, x_, hidden_);
  multiply(m, layer * kProducts + 3, block.down, activated_, inner_, After::kStore, middle_, hidden_);
  m.sync();
  add_normed(m, block.feed_post_norm);
}

void Pass::finish(const Member& m) {
  const auto count = static_cast<int64_t>(wanted_.size());
  const auto [begin, end] = m.share(count);
  for (int64_t r = begin; r < end; ++r)
    k_.norm(x_ + wanted_[static_cast<size_t>(r)] * hidden_, model_.final_norm_.data(), spec_.norm_eps, spec_.hidden,
            hidden_, normed_ + r * hidden_ * item_, item_ == 2);
  m.sync();
  Product p = model_.head_.product();
  p.x = normed_;
  p.x_stride = hidden_;
  p.out = logits_.data_ptr();
  p.out_stride = p.outputs = spec_.vocab;
  p.rows = count;
  encode(m, p);
  deal(m, model_.blocks_.size() * kProducts, p, 0, model_.head_.blocks);
}

}  // namespace c2c
