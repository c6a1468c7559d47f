#include "cache/kv_cache.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/error.h"

namespace c2c {

namespace {

at::Tensor make_arena(const CacheLayout& l, int64_t capacity) {
  // Checked before libtorch multiplies: an absurd capacity is a typed error, not an overflow.
  const double bytes = 2.0 * static_cast<double>(l.layers) * static_cast<double>(capacity) *
                       static_cast<double>(l.kv_heads * l.head_dim) * static_cast<double>(c10::elementSize(l.dtype));
  const Error too_big("OUT_OF_MEMORY", "no memory for a KV cache of " + std::to_string(capacity) + " positions",
                      {{"requested", bytes}});
  if (bytes > 9e18) throw too_big;
  try {
    return at::empty({l.layers, 2, capacity, l.kv_heads, l.head_dim}, at::TensorOptions().dtype(l.dtype));
  } catch (const c10::Error&) {
    throw too_big;
  }
}

}  // namespace

KvCache::KvCache(CacheLayout layout, int64_t capacity, bool grow)
    : layout_(layout), capacity_(std::max<int64_t>(capacity, 1)), grow_(grow) {
  arena_ = std::make_shared<at::Tensor>(make_arena(layout_, capacity_));
}

int64_t KvCache::bytes() const { return static_cast<int64_t>(arena_->nbytes()); }

void KvCache::reserve(int64_t count) {
  const int64_t need = length() + count;
  if (need <= capacity_) return own();
  if (!grow_) {
    throw Error("CACHE_FULL", "the cache holds " + std::to_string(capacity_) + " positions",
                {{"length", static_cast<double>(need)}, {"capacity", static_cast<double>(capacity_)}});
  }
  const int64_t capacity = std::max(need, capacity_ * 2);
  at::Tensor larger = make_arena(layout_, capacity);
  if (length() > 0) larger.narrow(2, 0, length()).copy_(arena_->narrow(2, 0, length()));
  arena_ = std::make_shared<at::Tensor>(std::move(larger));
  capacity_ = capacity;
}

void KvCache::commit(const uint32_t* tokens, const uint32_t* positions, int64_t count) {
  tokens_.insert(tokens_.end(), tokens, tokens + count);
  positions_.insert(positions_.end(), positions, positions + count);
}

void KvCache::truncate(int64_t length) {
  if (length < 0 || length > this->length()) option_invalid("length", "outside the cache");
  tokens_.resize(static_cast<size_t>(length));
  positions_.resize(static_cast<size_t>(length));
}

std::shared_ptr<KvCache> KvCache::fork() { return std::make_shared<KvCache>(*this); }

void KvCache::own() {
  if (arena_.use_count() == 1) return;
  at::Tensor mine = make_arena(layout_, capacity_);
  if (length() > 0) mine.narrow(2, 0, length()).copy_(arena_->narrow(2, 0, length()));
  arena_ = std::make_shared<at::Tensor>(std::move(mine));
}

at::Tensor KvCache::rows(int64_t layer, int64_t part, int64_t start, int64_t end) const {
  return arena_->select(0, layer).select(0, part).narrow(0, start, end - start);
}

}  // namespace c2c
