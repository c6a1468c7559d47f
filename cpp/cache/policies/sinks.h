// StreamingLLM (arXiv 2309.17453): the first rows, on which attention leans whatever they say, and the most recent
// ones.
#pragma once
#include "cache/policy.h"

namespace c2c {

// Numbers: `sinks`, the first rows that stay (0: a plain sliding window); `evict`, how many leave at once at least.
// With `evict` 1 the cache is always full, and every token moves and turns all of it; more at once cost less and round
// less.
std::shared_ptr<const Policy> make_sinks(const PolicyOptions& options, int64_t capacity);

}  // namespace c2c
