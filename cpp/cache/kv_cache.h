// A sequence's KV cache: a short list of segments, each a run of rows in a block. An unforked cache has one. A fork
// shares its parent's blocks: the first of the two that appends goes on in place, the other in a block of its own, and
// whoever writes over shared rows copies them first.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "cache/block.h"
#include "cache/policy.h"
#include "cache/ropes.h"

namespace c2c {

struct Segment {
  std::shared_ptr<Block> block;
  int64_t start = 0, rows = 0;  // in the block
};

// Rows [start, end) of a segment, which are the cache's from `at` on.
struct Slice {
  size_t segment;
  int64_t at, start, end;
};

class KvCache {
 public:
  // An empty cache. `ropes`: of the model; without them rows cannot move.
  KvCache(CacheLayout layout, int64_t capacity, bool grow, std::shared_ptr<const Ropes> ropes = nullptr);
  // Rows that are there already, and a token and a position for each. Grows.
  KvCache(CacheLayout layout, std::vector<Segment> segments, std::vector<uint32_t> tokens,
          std::vector<uint32_t> positions, std::shared_ptr<const Ropes> ropes);

  const CacheLayout& layout() const { return layout_; }
  const std::shared_ptr<const Ropes>& ropes() const { return ropes_; }
  int64_t length() const { return static_cast<int64_t>(tokens_->size()); }
  int64_t capacity() const;
  bool grows() const { return grow_; }
  // No more than `capacity` rows from now on; it has no more yet.
  void fix(int64_t capacity) {
    limit_ = capacity;
    grow_ = false;
  }
  // Blocks that other caches use too count towards one of them.
  int64_t bytes() const;
  const std::vector<Segment>& segments() const { return segments_; }
  const std::vector<uint32_t>& tokens() const { return *tokens_; }
  const std::vector<uint32_t>& positions() const { return *positions_; }
  // The positions that `count` rows behind the last one take.
  std::vector<uint32_t> next_positions(int64_t count) const;

  const std::shared_ptr<const Policy>& policy() const { return policy_; }
  void set_policy(std::shared_ptr<const Policy> policy) { policy_ = std::move(policy); }
  // Lets the policy make room for `count` rows more, where there is one and they do not fit. CACHE_FULL for more than
  // it can take at once.
  void make_room(int64_t count);

  // Makes room for `count` more rows behind the last one, in one segment; CACHE_FULL where it may not grow.
  void reserve(int64_t count);
  // Counts rows that were written behind the last one; reserve() came before.
  void commit(const uint32_t* tokens, const uint32_t* positions, int64_t count);
  void truncate(int64_t length);
  // O(segments): blocks are shared.
  std::shared_ptr<KvCache> fork() const;
  // Another's rows [start, end) with their tokens and positions, shared or (few) copied.
  void append(const KvCache& other, int64_t start, int64_t end);
  // A cache of rows [start, end), which shares them.
  std::shared_ptr<KvCache> slice(int64_t start, int64_t end) const;

  // Rows [start, end) of a part (0 key, 1 value), [end - start, kvHeads, headDim]; up to what is reserved. A view where
  // they lie in one segment's arena, else a copy: to read.
  at::Tensor rows(int64_t layer, int64_t part, int64_t start, int64_t end) const;
  // Writes rows from `start` on; own() or reserve() came before.
  void put(int64_t layer, int64_t part, int64_t start, const at::Tensor& rows);
  // Where rows [start, end) lie.
  std::vector<Slice> slices(int64_t start, int64_t end) const;
  // Makes rows [start, end) this cache's alone: those that a fork shares are copied, in blocks of kCopyRows.
  void own(int64_t start, int64_t end);
  // Makes rows [start, length) one segment of this cache's alone, with room up to the capacity.
  Segment& gather(int64_t start);
  // Tokens and positions of all rows; as many as there are rows, or fewer (the last rows are forgotten).
  void relabel(std::vector<uint32_t> tokens, std::vector<uint32_t> positions);

  static constexpr int64_t kCopyRows = 64;  // what a write over shared rows copies at once
  static constexpr int64_t kForkRows = 32;  // what a fork's own block has room for at first

 private:
  using Ids = std::vector<uint32_t>;
  KvCache(const KvCache&) = default;
  std::shared_ptr<Block> make_block(int64_t rows) const;
  bool mine(const Segment& segment) const;
  void release_tail();
  void forget(int64_t length);
  static Ids& changed(std::shared_ptr<Ids>& ids);

  CacheLayout layout_;
  int64_t limit_;  // capacity of a cache that does not grow
  bool grow_;
  std::shared_ptr<const Ropes> ropes_;
  std::shared_ptr<const Policy> policy_;
  std::vector<Segment> segments_;
  int64_t reserved_ = 0;  // rows behind the last one that this cache has claimed
  std::shared_ptr<Ids> tokens_ = std::make_shared<Ids>(), positions_ = std::make_shared<Ids>();
  std::shared_ptr<void> self_ = std::make_shared<int>();
};

}  // namespace c2c
