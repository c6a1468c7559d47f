// Memory of a cache's rows, shared by forks: [layers, 2 (key, value), capacity, kvHeads, headDim].
#pragma once
#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace c2c {

struct CacheLayout {
  int64_t layers = 0, kv_heads = 0, head_dim = 0, context = 0;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;  // where plain rows lie
  bool operator==(const CacheLayout&) const = default;

  int64_t row_bytes() const { return 2 * layers * kv_heads * head_dim * static_cast<int64_t>(c10::elementSize(dtype)); }
};

// How rows are kept: as they are, in 8 or in 4 bits.
enum class Form : uint8_t { kPlain, kInt8, kInt4 };

// Rows that are kept in another form than the arena's and cannot be written: in 8 or 4 bits, say.
class StoredRows {
 public:
  virtual ~StoredRows() = default;
  virtual Form form() const = 0;
  virtual int64_t length() const = 0;
  // Bytes that it holds.
  virtual int64_t bytes() const = 0;
  // Rows [start, end) one after another at `out`, as float or bfloat16; many threads may ask at once.
  virtual void copy(int64_t layer, int64_t part, int64_t start, int64_t end, at::ScalarType type, void* out) const = 0;
  // A copy in the cache's dtype and on its device, [end - start, kvHeads, headDim]; part 0 is key, 1 is value.
  virtual at::Tensor rows(int64_t layer, int64_t part, int64_t start, int64_t end) const = 0;
};

class Block {
 public:
  // OUT_OF_MEMORY.
  Block(const CacheLayout& layout, int64_t capacity);
  // Rows that are there already and stay as they are, e.g. of a mapped file.
  explicit Block(at::Tensor arena);
  explicit Block(std::shared_ptr<const StoredRows> stored);

  int64_t capacity() const { return capacity_; }
  int64_t bytes() const;
  bool writable() const { return writable_; }
  const StoredRows* stored() const { return stored_.get(); }
  // [layers, 2, capacity, kvHeads, headDim]; undefined for stored rows.
  const at::Tensor& arena() const { return arena_; }
  // A view, or a copy of stored rows.
  at::Tensor rows(int64_t layer, int64_t part, int64_t start, int64_t end) const;

  // Rows are handed out once, in order: takes [from, to) for the cache whose rows end at `from`; false where another
  // cache was first or there is no room.
  bool claim(int64_t from, int64_t to);
  // Gives back what lies behind `end`; only for a cache that has the block for itself.
  void release(int64_t end) { claimed_.store(end); }

  // Each block counts towards one cache's bytes: the first that asks while no other owner lives.
  bool owned_by(const std::shared_ptr<void>& owner) const;

 private:
  at::Tensor arena_;
  std::shared_ptr<const StoredRows> stored_;
  int64_t capacity_;
  bool writable_;
  std::atomic<int64_t> claimed_{0};
  mutable std::mutex mutex_;
  mutable std::weak_ptr<void> owner_;
};

}  // namespace c2c
