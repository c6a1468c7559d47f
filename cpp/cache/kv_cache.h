// A sequence's KV cache: one token-major arena [layers, 2 (key, value), capacity, kvHeads, headDim].
// A fork shares the arena until either side writes; then the writer copies it.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace c2c {

struct CacheLayout {
  int64_t layers = 0, kv_heads = 0, head_dim = 0, context = 0;
  at::ScalarType dtype = at::kFloat;
  bool operator==(const CacheLayout&) const = default;
};

class KvCache {
 public:
  KvCache(CacheLayout layout, int64_t capacity, bool grow);

  const CacheLayout& layout() const { return layout_; }
  int64_t length() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t capacity() const { return capacity_; }
  int64_t bytes() const;
  const std::vector<uint32_t>& tokens() const { return tokens_; }
  const std::vector<uint32_t>& positions() const { return positions_; }

  // Makes room for `count` more rows and makes the arena this cache's own; CACHE_FULL where it may not grow.
  void reserve(int64_t count);
  // Counts rows that were written behind the last one; reserve() came before.
  void commit(const uint32_t* tokens, const uint32_t* positions, int64_t count);
  void truncate(int64_t length);
  // O(1): the arena is shared until one side writes.
  std::shared_ptr<KvCache> fork();
  // Makes the arena this cache's own (copies it when a fork still shares it). Call before writing through rows().
  void own();
  // A view [end - start, kvHeads, headDim] of the arena; part 0 is key, 1 is value.
  at::Tensor rows(int64_t layer, int64_t part, int64_t start, int64_t end) const;

 private:
  CacheLayout layout_;
  int64_t capacity_;
  bool grow_;
  std::shared_ptr<at::Tensor> arena_;
  std::vector<uint32_t> tokens_, positions_;
};

}  // namespace c2c
