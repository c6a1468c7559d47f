#include "cache/block.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#ifdef __unix__
#include <unistd.h>
#endif

#include "core/error.h"
#include "core/pages.h"

namespace c2c {

namespace {

// All memory there is; where the system hands out more than it has, a cache past this would kill the process later.
double physical_memory() {
#ifdef __unix__
  const auto pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  if (pages > 0 && size > 0) return static_cast<double>(pages) * static_cast<double>(size);
#endif
  return 9e18;
}

// A device refuses what it has not, but libtorch must not overflow before it asks.
constexpr double kMostOnDevice = 1e15;

at::Tensor make_arena(const CacheLayout& l, int64_t capacity) {
  // Checked before libtorch multiplies: an absurd capacity is a typed error, not an overflow.
  const double bytes = static_cast<double>(l.row_bytes()) * static_cast<double>(capacity);
  const Error too_big("OUT_OF_MEMORY", "no memory for a KV cache of " + std::to_string(capacity) + " positions",
                      {{"requested", bytes}, {"device", l.device.str()}});
  if (l.device.is_cpu() ? bytes > physical_memory() : bytes > kMostOnDevice) throw too_big;
  try {
    at::Tensor arena =
        at::empty({l.layers, 2, capacity, l.kv_heads, l.head_dim}, at::TensorOptions().dtype(l.dtype).device(l.device));
    if (l.device.is_cpu()) ask_for_large_pages(arena.data_ptr(), arena.nbytes());
    return arena;
  } catch (const c10::Error&) {
    throw too_big;
  }
}

}  // namespace

Block::Block(const CacheLayout& layout, int64_t capacity)
    : arena_(make_arena(layout, capacity)), capacity_(capacity), writable_(true) {}

Block::Block(at::Tensor arena)
    : arena_(std::move(arena)), capacity_(arena_.size(2)), writable_(false), claimed_(capacity_) {}

Block::Block(std::shared_ptr<const StoredRows> stored)
    : stored_(std::move(stored)), capacity_(stored_->length()), writable_(false), claimed_(capacity_) {}

int64_t Block::bytes() const { return stored_ ? stored_->bytes() : static_cast<int64_t>(arena_.nbytes()); }

at::Tensor Block::rows(int64_t layer, int64_t part, int64_t start, int64_t end) const {
  if (stored_) return stored_->rows(layer, part, start, end);
  return arena_.select(0, layer).select(0, part).narrow(0, start, end - start);
}

bool Block::claim(int64_t from, int64_t to) { return to <= capacity_ && claimed_.compare_exchange_strong(from, to); }

bool Block::owned_by(const std::shared_ptr<void>& owner) const {
  const std::lock_guard lock(mutex_);
  if (owner_.expired()) owner_ = owner;
  return owner_.lock() == owner;
}

}  // namespace c2c
