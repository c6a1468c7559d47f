#include "kernels/team.h"

#include <ATen/Parallel.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include <sched.h>

#include <algorithm>

namespace c2c {

namespace {

// About 20 µs: longer than the imbalance of a phase, shorter than a time slice.
constexpr int kSpins = 4000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace

void Barrier::wait(Lead lead) {
  const uint32_t round = round_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  const std::byte* const end = lead.data + lead.bytes;
  for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
    if (lead.data < end) {
      __builtin_prefetch(lead.data, 0, 2);
      lead.data += 64;
    } else if (spins < kSpins) {
      pause();
    } else {
      sched_yield();
    }
  }
}

#ifndef _OPENMP
// A compiler without OpenMP has no threads to form a team of.
void run_team(int64_t, c10::function_ref<void(const Member&)> body) { body({0, 1, nullptr}); }
#else
void run_team(int64_t most, c10::function_ref<void(const Member&)> body) {
  const int threads = static_cast<int>(std::min<int64_t>(most, at::get_num_threads()));
  if (threads <= 1 || omp_in_parallel()) {
    body({0, 1, nullptr});
    return;
  }
  // OpenMP may give fewer threads than asked for: whoever comes first makes the barrier for those that are there.
  std::atomic<Barrier*> barrier{nullptr};
#pragma omp parallel num_threads(threads)
  {
    const int size = omp_get_num_threads();
#pragma omp single
    barrier.store(new Barrier(size));
    body({omp_get_thread_num(), size, barrier.load()});
  }
  delete barrier.load();
}
#endif

}  // namespace c2c
