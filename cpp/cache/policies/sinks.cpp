// StreamingLLM (arXiv 2309.17453): the first rows, on which attention leans whatever they say, and the most recent
// ones.
#include <algorithm>

#include "cache/policy.h"
#include "core/error.h"

namespace c2c {

namespace {

class Sinks : public Policy {
 public:
  Sinks(int64_t sinks, int64_t evict) : sinks_(sinks), evict_(evict) {}
  const char* name() const override { return "sinks"; }
  int64_t most(int64_t capacity) const override { return capacity - sinks_; }

  EvictionPlan plan(const Occupancy& now) const override {
    const int64_t first = std::min(sinks_, now.length);
    const int64_t over = now.length + now.incoming - now.capacity;
    const int64_t leave = std::min(std::max(over, evict_), now.length - first);
    return {{{{0, first}, {first + leave, now.length}}}};
  }

 private:
  int64_t sinks_, evict_;
};

}  // namespace

// Numbers: `sinks`, the first rows that stay (0: a plain sliding window); `evict`, how many leave at once at least.
// With `evict` 1 the cache is always full, and every token moves and turns all of it; more at once cost less and round
// less.
std::shared_ptr<const Policy> make_sinks(const PolicyOptions& options, int64_t capacity) {
  int64_t sinks = 4, evict = std::max<int64_t>(1, capacity / 16);
  for (const auto& [name, value] : options.numbers) {
    if (name == "sinks") {
      sinks = value;
    } else if (name == "evict") {
      evict = value;
    } else {
      option_invalid("policy." + name, "is not a number of this policy");
    }
  }
  if (sinks < 0 || sinks >= capacity) option_invalid("policy.sinks", "must be less than the cache's capacity");
  if (evict < 1 || evict > capacity - sinks) option_invalid("policy.evict", "must be 1 to the rows beside the sinks");
  return std::make_shared<Sinks>(sinks, evict);
}

}  // namespace c2c
