// Changes to a cache's rows that move them: keys are turned to their new positions (RoPE is relative, so a key at
// another position is the same key turned by the difference). What later rows read from erased ones stays in them.
#pragma once
#include "cache/kv_cache.h"

namespace c2c {

// Forgets rows [from, to); later rows move down by as many positions. OPTION_INVALID outside the cache.
void erase(KvCache& cache, int64_t from, int64_t to);

// Moves all rows by `by` positions. OPTION_INVALID for a position below 0, CACHE_FULL for one past the model's context.
void shift(KvCache& cache, int64_t by);

// Appends another's rows [start, end) so that the first takes the position behind this cache's last. CACHE_FULL.
void append_behind(KvCache& cache, const KvCache& other, int64_t start, int64_t end);

// Carries a plan out: rows that it does not name are forgotten. OPTION_INVALID for ranges that are not ascending, lie
// outside, or differ in number between layers.
void keep(KvCache& cache, const EvictionPlan& plan);

// Turns keys [rows, heads, headDim] by `delta` positions, in place, computed in float32.
void turn_keys(const at::Tensor& keys, const std::vector<double>& inverse_frequencies, int64_t delta);

}  // namespace c2c
