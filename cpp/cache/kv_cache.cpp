#include "cache/kv_cache.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/error.h"

namespace c2c {

namespace {

// Copies rows [start, end) of `from` to rows `at` on of `to`, in all layers.
void copy_rows(const CacheLayout& layout, const Block& from, int64_t start, int64_t end, Block& to, int64_t at) {
  if (end == start) return;
  for (int64_t layer = 0; layer < layout.layers; ++layer)
    for (int64_t part = 0; part < 2; ++part)
      to.rows(layer, part, at, at + end - start).copy_(from.rows(layer, part, start, end));
}

}  // namespace

KvCache::KvCache(CacheLayout layout, int64_t capacity, bool grow, std::shared_ptr<const Ropes> ropes)
    : layout_(layout), limit_(std::max<int64_t>(capacity, 1)), grow_(grow), ropes_(std::move(ropes)) {
  segments_.push_back({make_block(limit_), 0, 0});
}

KvCache::KvCache(CacheLayout layout, std::vector<Segment> segments, std::vector<uint32_t> tokens,
                 std::vector<uint32_t> positions, std::shared_ptr<const Ropes> ropes)
    : layout_(layout),
      limit_(std::max<int64_t>(static_cast<int64_t>(tokens.size()), 1)),
      grow_(true),
      ropes_(std::move(ropes)),
      segments_(std::move(segments)) {
  *tokens_ = std::move(tokens);
  *positions_ = std::move(positions);
}

std::shared_ptr<Block> KvCache::make_block(int64_t rows) const {
  auto block = std::make_shared<Block>(layout_, rows);
  block->owned_by(self_);
  return block;
}

int64_t KvCache::capacity() const {
  if (!grow_) return limit_;
  if (segments_.empty()) return 1;
  const Segment& tail = segments_.back();
  return length() - tail.rows + tail.block->capacity() - tail.start;
}

int64_t KvCache::bytes() const {
  int64_t total = 0;
  std::vector<const Block*> seen;
  for (const Segment& s : segments_) {
    if (std::find(seen.begin(), seen.end(), s.block.get()) != seen.end()) continue;
    seen.push_back(s.block.get());
    if (s.block->owned_by(self_)) total += s.block->bytes();
  }
  return total;
}

std::vector<uint32_t> KvCache::next_positions(int64_t count) const {
  std::vector<uint32_t> next(static_cast<size_t>(count));
  uint32_t at = positions_->empty() ? 0 : positions_->back() + 1;
  for (uint32_t& position : next) position = at++;
  return next;
}

bool KvCache::mine(const Segment& segment) const {
  if (!segment.block->writable()) return false;
  int64_t uses = 0;
  for (const Segment& s : segments_) {
    if (s.block != segment.block) continue;
    ++uses;
    // A cache may hold the same rows twice.
    if (&s != &segment && s.start < segment.start + segment.rows && segment.start < s.start + s.rows) return false;
  }
  return segment.block.use_count() == uses;
}

KvCache::Ids& KvCache::changed(std::shared_ptr<Ids>& ids) {
  if (ids.use_count() > 1) ids = std::make_shared<Ids>(*ids);
  return *ids;
}

void KvCache::reserve(int64_t count) {
  const int64_t need = length() + count;
  if (!grow_ && need > limit_) {
    throw Error("CACHE_FULL", "the cache holds " + std::to_string(limit_) + " positions",
                {{"length", static_cast<double>(need)}, {"capacity", static_cast<double>(limit_)}});
  }
  if (count <= reserved_) return;
  const int64_t most = grow_ ? INT64_MAX : limit_ - length();
  if (!segments_.empty()) {
    Segment& tail = segments_.back();
    const int64_t end = tail.start + tail.rows;
    if (tail.block->claim(end + reserved_, end + count)) {
      reserved_ = count;
      return;
    }
    if (mine(tail) && tail.start == 0) {
      const int64_t grown = most > INT64_MAX - tail.rows ? tail.block->capacity() * 2
                                                         : std::min(tail.block->capacity() * 2, tail.rows + most);
      auto larger = make_block(std::max(tail.rows + count, grown));
      copy_rows(layout_, *tail.block, 0, tail.rows, *larger, 0);
      larger->claim(0, tail.rows + count);
      tail.block = std::move(larger);
      reserved_ = count;
      return;
    }
    if (tail.rows == 0) segments_.pop_back();
  }
  auto block = make_block(std::max(count, std::min(kForkRows, most)));
  block->claim(0, count);
  segments_.push_back({std::move(block), 0, 0});
  reserved_ = count;
}

void KvCache::commit(const uint32_t* tokens, const uint32_t* positions, int64_t count) {
  if (count == 0) return;
  Ids& ids = changed(tokens_);
  Ids& places = changed(positions_);
  ids.insert(ids.end(), tokens, tokens + count);
  places.insert(places.end(), positions, positions + count);
  segments_.back().rows += count;
  reserved_ -= count;
}

void KvCache::release_tail() {
  reserved_ = 0;
  if (segments_.empty()) return;
  const Segment& tail = segments_.back();
  if (!mine(tail)) return;
  int64_t end = 0;
  for (const Segment& s : segments_)
    if (s.block == tail.block) end = std::max(end, s.start + s.rows);
  tail.block->release(end);
}

void KvCache::forget(int64_t length) {
  int64_t over = this->length() - length;
  while (over > 0 && segments_.size() > 1 && segments_.back().rows <= over) {
    over -= segments_.back().rows;
    segments_.pop_back();
  }
  if (!segments_.empty()) segments_.back().rows -= over;
  release_tail();
}

void KvCache::truncate(int64_t length) {
  if (length < 0 || length > this->length()) option_invalid("length", "outside the cache");
  if (length == this->length()) return;
  forget(length);
  changed(tokens_).resize(static_cast<size_t>(length));
  changed(positions_).resize(static_cast<size_t>(length));
}

void KvCache::relabel(std::vector<uint32_t> tokens, std::vector<uint32_t> positions) {
  if (tokens.size() < tokens_->size()) forget(static_cast<int64_t>(tokens.size()));
  tokens_ = std::make_shared<Ids>(std::move(tokens));
  positions_ = std::make_shared<Ids>(std::move(positions));
}

std::shared_ptr<KvCache> KvCache::fork() const {
  std::shared_ptr<KvCache> other(new KvCache(*this));
  other->reserved_ = 0;
  other->self_ = std::make_shared<int>();
  return other;
}

std::shared_ptr<KvCache> KvCache::slice(int64_t start, int64_t end) const {
  auto other = fork();
  other->segments_.clear();
  for (const Slice& s : slices(start, end)) {
    const Segment& from = segments_[s.segment];
    other->segments_.push_back({from.block, s.start, s.end - s.start});
  }
  const auto cut = [&](const Ids& ids) { return std::make_shared<Ids>(ids.begin() + start, ids.begin() + end); };
  other->tokens_ = cut(*tokens_);
  other->positions_ = cut(*positions_);
  return other;
}

void KvCache::append(const KvCache& other, int64_t start, int64_t end) {
  const int64_t count = end - start;
  if (count == 0) return;
  const Ids tokens(other.tokens_->begin() + start, other.tokens_->begin() + end);
  const Ids positions(other.positions_->begin() + start, other.positions_->begin() + end);
  if (count < kCopyRows || !grow_) {
    // Taken before reserve(): a cache may be appended to itself.
    std::vector<at::Tensor> rows;
    for (int64_t layer = 0; layer < layout_.layers; ++layer)
      for (int64_t part = 0; part < 2; ++part) rows.push_back(other.rows(layer, part, start, end));
    reserve(count);
    for (int64_t layer = 0; layer < layout_.layers; ++layer)
      for (int64_t part = 0; part < 2; ++part) put(layer, part, length(), rows[static_cast<size_t>(layer * 2 + part)]);
    return commit(tokens.data(), positions.data(), count);
  }
  std::vector<Segment> shared;
  for (const Slice& s : other.slices(start, end))
    shared.push_back({other.segments_[s.segment].block, s.start, s.end - s.start});
  release_tail();
  if (!segments_.empty() && segments_.back().rows == 0) segments_.pop_back();
  segments_.insert(segments_.end(), shared.begin(), shared.end());
  Ids& ids = changed(tokens_);
  Ids& places = changed(positions_);
  ids.insert(ids.end(), tokens.begin(), tokens.end());
  places.insert(places.end(), positions.begin(), positions.end());
}

std::vector<Slice> KvCache::slices(int64_t start, int64_t end) const {
  std::vector<Slice> found;
  int64_t before = 0;
  for (size_t i = 0; i < segments_.size() && before < end; ++i) {
    const Segment& s = segments_[i];
    const int64_t rows = s.rows + (i + 1 == segments_.size() ? reserved_ : 0);
    const int64_t from = std::max(start, before), to = std::min(end, before + rows);
    if (from < to) found.push_back({i, from, s.start + from - before, s.start + to - before});
    before += rows;
  }
  return found;
}

at::Tensor KvCache::rows(int64_t layer, int64_t part, int64_t start, int64_t end) const {
  const auto found = slices(start, end);
  if (found.size() == 1) return segments_[found[0].segment].block->rows(layer, part, found[0].start, found[0].end);
  std::vector<at::Tensor> parts;
  for (const Slice& s : found) parts.push_back(segments_[s.segment].block->rows(layer, part, s.start, s.end));
  if (parts.empty())
    return at::empty({0, layout_.kv_heads, layout_.head_dim},
                     at::TensorOptions().dtype(layout_.dtype).device(layout_.device));
  return at::cat(parts, 0);
}

void KvCache::put(int64_t layer, int64_t part, int64_t start, const at::Tensor& rows) {
  for (const Slice& s : slices(start, start + rows.size(0)))
    segments_[s.segment].block->rows(layer, part, s.start, s.end).copy_(rows.narrow(0, s.at - start, s.end - s.start));
}

void KvCache::own(int64_t start, int64_t end) {
  int64_t before = 0;
  std::vector<Segment> kept;
  bool copied = false;
  const std::vector<bool> alone = [&] {
    std::vector<bool> found;
    for (const Segment& s : segments_) found.push_back(mine(s));
    return found;
  }();
  for (size_t i = 0; i < segments_.size(); ++i) {
    const Segment& s = segments_[i];
    const int64_t first = before, last = before + s.rows;
    before = last;
    if (last <= start || first >= end || alone[i]) {
      kept.push_back(s);
      continue;
    }
    const int64_t from = std::max(first, start / kCopyRows * kCopyRows);
    const int64_t to = std::min(last, (end + kCopyRows - 1) / kCopyRows * kCopyRows);
    auto block = make_block(to - from);
    copy_rows(layout_, *s.block, s.start + from - first, s.start + to - first, *block, 0);
    block->claim(0, to - from);
    if (from > first) kept.push_back({s.block, s.start, from - first});
    kept.push_back({std::move(block), 0, to - from});
    if (to < last) kept.push_back({s.block, s.start + to - first, last - to});
    copied = true;
  }
  if (!copied) return;
  segments_ = std::move(kept);
  release_tail();
}

Segment& KvCache::gather(int64_t start) {
  const int64_t rows = length() - start;
  if (!segments_.empty()) {
    Segment& tail = segments_.back();
    if (tail.rows >= rows && mine(tail)) return tail;
  }
  auto block = make_block(std::max<int64_t>(1, grow_ ? rows : limit_ - start));
  int64_t at = 0;
  for (const Slice& s : slices(start, length())) {
    copy_rows(layout_, *segments_[s.segment].block, s.start, s.end, *block, at);
    at += s.end - s.start;
  }
  block->claim(0, rows);
  const auto kept = slices(0, start);
  std::vector<Segment> segments;
  for (const Slice& s : kept) segments.push_back({segments_[s.segment].block, s.start, s.end - s.start});
  segments.push_back({std::move(block), 0, rows});
  segments_ = std::move(segments);
  reserved_ = 0;
  return segments_.back();
}

}  // namespace c2c
