// The hardware's limits, measured: read bandwidth, and the rate of packed matrix products by rows and dtype.
//   floor [THREADS]           one JSON object on stdout:
//   { "threads", "readGBs", "products": [ { "dtype", "rows", "gflops" } ] }
//   floor THREADS reads       for every line on stdin, the read bandwidth of that moment (GB/s, about 60 ms)
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <new>
#include <string>
#include <vector>

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Seconds of one run: the best of several, since only interruptions make a run longer.
template <class Work>
double best(Work work, double budget) {
  work();
  double shortest = 1e30;
  for (const double end = seconds() + budget; seconds() < end;) {
    const double start = seconds();
    work();
    shortest = std::min(shortest, seconds() - start);
  }
  return shortest;
}

// Memory as packed weights have it: on large pages where the system gives them.
struct Words {
  static constexpr int64_t kCount = int64_t{1} << 26;  // 512 MB of 8-byte words: more than any cache holds
  int64_t* data;
  Words() {
    constexpr size_t kHuge = size_t{2} << 20, kBytes = kCount * 8;
    void* memory = ::mmap(nullptr, kBytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    ::madvise(memory, kBytes + kHuge, MADV_HUGEPAGE);
#endif
    data = reinterpret_cast<int64_t*>((reinterpret_cast<uintptr_t>(memory) + kHuge - 1) / kHuge * kHuge);
    std::fill_n(data, kCount, 1);
  }
};

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

// Sums [0, count) as `streams` runs side by side, each asked for `ahead` words before it is read.
WIDEST int64_t sum(const int64_t* words, int64_t count, int64_t streams, int64_t ahead) {
  typedef int64_t Line __attribute__((vector_size(64)));
  const int64_t run = count / streams;
  Line sums[8] = {};
  for (int64_t i = 0; i + 16 <= run; i += 16)
    for (int64_t s = 0; s < streams; ++s) {
      const int64_t* at = words + s * run + i;
      if (ahead > 0) {
        __builtin_prefetch(at + ahead);
        __builtin_prefetch(at + ahead + 8);
      }
      Line a, b;
      std::memcpy(&a, at, sizeof(a));
      std::memcpy(&b, at + 8, sizeof(b));
      sums[s] += a + b;
    }
  int64_t total = 0;
  for (const Line& line : sums)
    for (int64_t i = 0; i < 8; ++i) total += line[i];
  return total;
}

// How fast memory is read by all threads: the best of several ways to walk through it, since none is the best
// everywhere.
class Reader {
 public:
  // GB/s, each way tried for `budget` seconds; the best one is kept for again().
  double all_ways(double budget) {
    double most = 0;
    for (const int64_t streams : {1, 2, 4, 8})
      for (const int64_t ahead : {0, 256, 1024}) {
        const double rate = gbs(streams, ahead, budget);
        if (rate <= most) continue;
        most = rate;
        streams_ = streams;
        ahead_ = ahead;
      }
    return most;
  }
  double again(double budget) { return gbs(streams_, ahead_, budget); }

 private:
  double gbs(int64_t streams, int64_t ahead, double budget) {
    const double shortest = best(
        [&] {
          at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t begin, int64_t end) {
            const int64_t share = Words::kCount / at::get_num_threads();
            total_ += sum(words_.data + begin * share, (end - begin) * share, streams, ahead);
          });
        },
        budget);
    if (total_ == 0) std::abort();  // the sums are used, so that reading is not left out
    return static_cast<double>(Words::kCount) * 8 / shortest / 1e9;
  }

  Words words_;
  std::atomic<int64_t> total_{0};
  int64_t streams_ = 1, ahead_ = 0;
};

using Pack = at::Tensor(const at::Tensor&, std::optional<c10::SymInt>);
using Product = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, c10::string_view,
                           c10::List<std::optional<at::Scalar>>, std::optional<c10::string_view>);

// Whether the library multiplies packed bfloat16 here: not without AVX-512.
bool packs_bfloat16() {
  static const bool packs = [] {
    try {
      const auto pack =
          c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_reorder_linear_weight", "").typed<Pack>();
      pack.call(at::ones({64, 64}, at::kBFloat16), c10::SymInt(1));
      return true;
    } catch (const c10::Error&) {
      return false;
    }
  }();
  return packs;
}

// 24 products of [rows, 1024] by [1024, 1024]: together larger than the last-level cache, as a model's are.
double gflops(at::ScalarType dtype, int64_t rows) {
  auto& dispatcher = c10::Dispatcher::singleton();
  static const auto pack = dispatcher.findSchemaOrThrow("mkldnn::_reorder_linear_weight", "").typed<Pack>();
  static const auto product = dispatcher.findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Product>();
  std::vector<at::Tensor> weights;
  for (int i = 0; i < 24; ++i) weights.push_back(pack.call(at::randn({1024, 1024}).to(dtype), c10::SymInt(rows)));
  const at::Tensor x = at::randn({rows, 1024}).to(dtype);
  const double time = best(
      [&] {
        for (const at::Tensor& weight : weights)
          product.call(x, weight, std::nullopt, "none", c10::List<std::optional<at::Scalar>>(), "");
      },
      0.5);
  return 24.0 * 2 * 1024 * 1024 * static_cast<double>(rows) / time / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  at::NoGradGuard no_grad;
  if (argc > 1) at::set_num_threads(std::atoi(argv[1]));
  if (argc > 2 && std::string(argv[2]) == "reads") {
    Reader reader;
    reader.all_ways(0.05);
    for (std::string line; std::getline(std::cin, line);) {
      std::printf("%.2f\n", reader.again(0.04));
      std::fflush(stdout);
    }
    return 0;
  }
  std::printf("{\"threads\":%d,\"readGBs\":%.2f,\"products\":[", at::get_num_threads(), Reader().all_ways(0.25));
  const char* comma = "";
  const auto print = [&](const char* dtype, int64_t rows, double rate) {
    std::printf("%s{\"dtype\":\"%s\",\"rows\":%ld,\"gflops\":%.1f}", comma, dtype, static_cast<long>(rows), rate);
    comma = ",";
  };
  for (const int64_t rows : {1, 16, 64, 256, 1024}) {
    const double floats = gflops(at::kFloat, rows);
    print("float32", rows, floats);
    // bfloat16 can be widened, and on some processors float units are the faster ones.
    print("bfloat16", rows, packs_bfloat16() ? std::max(floats, gflops(at::kBFloat16, rows)) : floats);
  }
  std::printf("]}\n");
}
