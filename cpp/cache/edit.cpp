#include "cache/edit.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"

namespace c2c {

namespace {

using Ranges = std::vector<RowRange>;
using Ids = std::vector<uint32_t>;

const Ropes& ropes(const KvCache& cache) {
  if (!cache.ropes())
    throw Error("UNSUPPORTED", "rows of this cache cannot move: it has no rotary positions",
                {{"what", std::string("moving rows")}, {"supported", std::vector<std::string>{"rotary positions"}}});
  return *cache.ropes();
}

const std::vector<double>& rope_of(const KvCache& cache, int64_t layer) {
  const Ropes& all = ropes(cache);
  return all.inverse_frequencies[static_cast<size_t>(all.of_layer[static_cast<size_t>(layer)])];
}

// Turns one layer's keys from row `row` on, which came from `from`, to `to`: runs of one difference at once.
void turn_rows(KvCache& cache, int64_t layer, int64_t row, const Ids& from, const Ids& to) {
  const auto count = static_cast<int64_t>(from.size());
  const auto delta = [&](int64_t i) {
    return int64_t{to[static_cast<size_t>(i)]} - int64_t{from[static_cast<size_t>(i)]};
  };
  for (int64_t i = 0, end; i < count; i = end) {
    for (end = i + 1; end < count && delta(end) == delta(i);) ++end;
    if (delta(i) == 0) continue;
    for (const Slice& s : cache.slices(row + i, row + end))
      turn_keys(cache.segments()[s.segment].block->rows(layer, 0, s.start, s.end), rope_of(cache, layer), delta(i));
  }
}

void check_ranges(const Ranges& ranges, int64_t length) {
  int64_t before = 0;
  for (const RowRange& r : ranges) {
    if (r.start < before || r.end < r.start || r.end > length)
      option_invalid("plan", "ranges are not ascending rows of the cache");
    before = r.end;
  }
}

Ids picked(const Ids& ids, const Ranges& ranges) {
  Ids found;
  for (const RowRange& r : ranges) found.insert(found.end(), ids.begin() + r.start, ids.begin() + r.end);
  return found;
}

// The first row that does not stay where it is.
int64_t first_moved(const Ranges& ranges) {
  int64_t row = 0;
  for (const RowRange& r : ranges) {
    if (r.start != row) break;
    row = r.end;
  }
  return row;
}

// Moves the ranges' rows below each other, in rows that begin with the cache's row `base`.
void move_down(const at::Tensor& rows, const Ranges& ranges, int64_t base) {
  std::vector<at::Tensor> parts;  // on a device: what moves is copied once, then put back in one piece
  const auto bytes = static_cast<size_t>(rows.stride(0)) * rows.element_size();
  auto* first = rows.device().is_cpu() ? static_cast<std::byte*>(rows.data_ptr()) : nullptr;
  int64_t to = 0, begin = 0;
  for (const RowRange& r : ranges) {
    const int64_t from = std::max(r.start, base), count = r.end - from, onto = to + from - r.start - base;
    to += r.end - r.start;
    if (count <= 0 || onto == from - base) continue;
    if (first == nullptr) {
      if (parts.empty()) begin = onto;
      parts.push_back(rows.narrow(0, from - base, count));
    } else {
      // Rows only ever move down, so that what is read has not been written over yet.
      std::memmove(first + static_cast<size_t>(onto) * bytes, first + static_cast<size_t>(from - base) * bytes,
                   static_cast<size_t>(count) * bytes);
    }
  }
  if (parts.empty()) return;
  const at::Tensor moved = at::cat(parts, 0);
  rows.narrow(0, begin, moved.size(0)).copy_(moved);
}

// Keeps `ranges[layer]` (or the one entry, in every layer) at `positions`, which all layers share.
void compact(KvCache& cache, const std::vector<Ranges>& ranges, const Ids& positions) {
  const at::NoGradGuard no_grad;
  const Ids tokens = picked(cache.tokens(), ranges[0]), old = cache.positions();
  int64_t first = cache.length();
  for (const Ranges& r : ranges) first = std::min(first, first_moved(r));
  for (size_t i = 0; i < positions.size() && static_cast<int64_t>(i) < first; ++i)
    if (positions[i] != old[i]) first = static_cast<int64_t>(i);
  const Segment& tail = cache.gather(first);
  const CacheLayout& l = cache.layout();
  const int64_t base = cache.length() - tail.rows, end = tail.start + tail.rows;
  for (int64_t layer = 0; layer < l.layers; ++layer) {
    const Ranges& mine = ranges[ranges.size() == 1 ? 0 : static_cast<size_t>(layer)];
    for (int64_t part = 0; part < 2; ++part) {
      move_down(tail.block->rows(layer, part, tail.start, end), mine, base);
    }
    const Ids from = picked(old, mine);
    const auto start = std::min<int64_t>(base, static_cast<int64_t>(from.size()));
    turn_rows(cache, layer, start, {from.begin() + start, from.end()}, {positions.begin() + start, positions.end()});
  }
  cache.relabel(tokens, positions);
}

}  // namespace

void turn_keys(const at::Tensor& keys, const std::vector<double>& inverse_frequencies, int64_t delta) {
  const auto type = keys.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<double> cosines, sines;
  for (const double frequency : inverse_frequencies) {
    const double angle = static_cast<double>(delta) * frequency;
    cosines.push_back(std::cos(angle));
    sines.push_back(std::sin(angle));
  }
  const at::Tensor cos = at::tensor(cosines, at::kDouble).to(keys.device(), type),
                   sin = at::tensor(sines, at::kDouble).to(keys.device(), type);
  const int64_t half = keys.size(-1) / 2;
  at::Tensor low = keys.narrow(-1, 0, half), high = keys.narrow(-1, half, half);
  const at::Tensor a = low.to(type), b = high.to(type);
  const at::Tensor turned = a * cos - b * sin;
  high.copy_(b * cos + a * sin);
  low.copy_(turned);
}

void erase(KvCache& cache, int64_t from, int64_t to) {
  if (from < 0 || to < from || to > cache.length()) option_invalid("range", "outside the cache");
  if (to == from) return;
  if (to == cache.length()) return cache.truncate(from);
  const Ids& old = cache.positions();
  const int64_t gap = int64_t{old[static_cast<size_t>(to)]} - int64_t{old[static_cast<size_t>(from)]};
  const Ranges kept{{0, from}, {to, cache.length()}};
  Ids positions = picked(old, kept);
  for (size_t i = static_cast<size_t>(from); i < positions.size(); ++i) {
    if (int64_t{positions[i]} < gap) option_invalid("range", "would move later rows below position 0");
    positions[i] = static_cast<uint32_t>(int64_t{positions[i]} - gap);
  }
  compact(cache, {kept}, positions);
}

void shift(KvCache& cache, int64_t by) {
  if (by == 0 || cache.length() == 0) return;
  const at::NoGradGuard no_grad;
  ropes(cache);
  const auto [low, high] = std::minmax_element(cache.positions().begin(), cache.positions().end());
  if (int64_t{*low} + by < 0) option_invalid("by", "would move rows below position 0");
  if (int64_t{*high} + by >= cache.layout().context)
    throw Error("CACHE_FULL", "would move rows past the model's context",
                {{"length", static_cast<double>(*high) + static_cast<double>(by) + 1},
                 {"capacity", static_cast<double>(cache.layout().context)}});
  Ids positions = cache.positions();
  for (uint32_t& position : positions) position = static_cast<uint32_t>(int64_t{position} + by);
  cache.own(0, cache.length());
  for (int64_t layer = 0; layer < cache.layout().layers; ++layer)
    turn_rows(cache, layer, 0, cache.positions(), positions);
  cache.relabel(cache.tokens(), std::move(positions));
}

void append_behind(KvCache& cache, const KvCache& other, int64_t start, int64_t end) {
  if (end == start) return;
  const int64_t next = cache.next_positions(1)[0];
  const auto moved = other.slice(start, end);
  shift(*moved, next - int64_t{moved->positions()[0]});
  cache.append(*moved, 0, end - start);
}

void keep(KvCache& cache, const EvictionPlan& plan) {
  const auto layers = static_cast<size_t>(cache.layout().layers);
  if (plan.keep.size() != 1 && plan.keep.size() != layers) option_invalid("plan", "neither one entry nor one a layer");
  if (plan.keep.size() != 1 && !plan.places)
    option_invalid("plan", "layers that keep different rows share positions only by their places");
  for (const Ranges& ranges : plan.keep) check_ranges(ranges, cache.length());
  Ids positions = picked(cache.positions(), plan.keep[0]);
  for (const Ranges& ranges : plan.keep)
    if (picked(cache.positions(), ranges).size() != positions.size())
      option_invalid("plan", "layers keep different numbers of rows");
  if (plan.places) {
    ropes(cache);
    for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<uint32_t>(i);
  }
  compact(cache, plan.keep, positions);
}

void KvCache::make_room(int64_t count) {
  if (!policy_ || length() + count <= limit_) return;
  const int64_t most = policy_->most(limit_);
  if (count > most)
    throw Error("CACHE_FULL", "at most " + std::to_string(most) + " rows can come into this cache at once",
                {{"length", static_cast<double>(count)}, {"capacity", static_cast<double>(most)}});
  keep(*this, policy_->plan({layout_.layers, length(), limit_, count}));
}

}  // namespace c2c
