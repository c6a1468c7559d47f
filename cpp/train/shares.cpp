#include "train/shares.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

namespace c2c {

namespace {

constexpr int64_t kMostBytes = int64_t{128} << 20;

int64_t shares_for(const Parameters& parameters, int64_t samples) {
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads(), shares = std::min(threads, samples);
  const auto bytes = static_cast<int64_t>(parameters.gradients().nbytes());
  return 2 * samples < threads || shares * bytes > kMostBytes ? 1 : std::max<int64_t>(shares, 1);
}

// The library's products ask for all threads inside a thread of a team too, and that costs more than small products
// take: every thread of the team is told to work alone, and the caller gets its number back.
class ThreadsKept {
 public:
  ThreadsKept() = default;
  ThreadsKept(const ThreadsKept&) = delete;
  ThreadsKept& operator=(const ThreadsKept&) = delete;
  ~ThreadsKept() { at::set_num_threads(threads_); }

 private:
  int threads_ = at::get_num_threads();
};

}  // namespace

std::vector<int64_t> deal(const std::vector<int64_t>& rows, int64_t shares) {
  const auto samples = static_cast<int64_t>(rows.size());
  const auto total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  std::vector<int64_t> ends;
  int64_t end = 0, dealt = 0;
  for (int64_t share = 1; share < shares; ++share) {
    const int64_t most = samples - (shares - share);  // every later share gets a sample too
    const int64_t wanted = total * share / shares;
    do dealt += rows[static_cast<size_t>(end++)];
    while (end < most && dealt + rows[static_cast<size_t>(end)] / 2 < wanted);
    ends.push_back(end);
  }
  ends.push_back(samples);
  return ends;
}

double Shares::accumulate(const Parameters& parameters, const std::vector<int64_t>& rows, const Compute& compute) {
  const std::vector<int64_t> ends = deal(rows, shares_for(parameters, static_cast<int64_t>(rows.size())));
  if (ends.size() == 1) return compute(parameters.own(), 0, 0, ends[0]);
  while (twins_.size() + 1 < ends.size()) twins_.push_back(parameters.twin());
  std::vector<double> losses(ends.size());
  const ThreadsKept kept;
  at::parallel_for(0, static_cast<int64_t>(ends.size()), 1, [&](int64_t first, int64_t last) {
    const at::AutoGradMode on(true);
    at::set_num_threads(1);
    for (int64_t share = first; share < last; ++share) {
      const auto i = static_cast<size_t>(share);
      const Leaves& leaves = share == 0 ? parameters.own() : twins_[i - 1];
      if (share > 0) leaves.gradients.zero_();
      losses[i] = compute(leaves, share, share == 0 ? 0 : ends[i - 1], ends[i]);
    }
  });
  for (size_t i = 0; i + 1 < ends.size(); ++i) parameters.gradients().add_(twins_[i].gradients);
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace c2c
