// A team of threads that walks through many short phases together: one wake-up for a whole pass instead of one a phase.
#pragma once
#include <c10/util/FunctionRef.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace c2c {

// Memory that will be read next, whatever the other members are at: it is asked for while they are waited for.
struct Lead {
  const std::byte* data = nullptr;
  int64_t bytes = 0;
};

class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  // Returns when all members have called it. Spins a little, then yields its core.
  void wait(Lead lead);

 private:
  const int size_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
};

// One thread's place in the team.
struct Member {
  int index, size;
  Barrier* barrier;

  void sync(Lead lead = {}) const {
    if (size > 1) barrier->wait(lead);
  }
  // This member's share of `count` items, in order.
  std::pair<int64_t, int64_t> share(int64_t count) const { return {count * index / size, count * (index + 1) / size}; }
};

// Runs `body` on at most `most` of libtorch's threads at once. `body` must not throw.
void run_team(int64_t most, c10::function_ref<void(const Member&)> body);

}  // namespace c2c
