// The hardware's limits, measured: read bandwidth, and the rate of packed matrix products by rows and dtype.
//   floor [THREADS]     one JSON object on stdout:
//   { "threads", "readGBs", "products": [ { "dtype", "rows", "gflops" } ] }
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
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

double read_gbs() {
  const int64_t count = int64_t{1} << 26;  // 512 MB of 8-byte words: more than any cache holds
  const at::Tensor block = at::full({count}, 1, at::kLong);
  const auto* words = block.const_data_ptr<int64_t>();
  std::vector<int64_t> sums(static_cast<size_t>(at::get_num_threads()) * 64);
  const double time = best(
      [&] {
        at::parallel_for(0, count, count / at::get_num_threads(), [&](int64_t begin, int64_t end) {
          int64_t sum[8] = {};
          for (int64_t i = begin; i + 8 <= end; i += 8)
            for (int64_t j = 0; j < 8; ++j) sum[j] += words[i + j];
          for (const int64_t s : sum) sums[static_cast<size_t>(at::get_thread_num()) * 64] += s;
        });
      },
      0.6);
  if (sums[0] == 0) std::abort();  // the sums are used, so that reading is not left out
  return static_cast<double>(count) * 8 / time / 1e9;
}

using Pack = at::Tensor(const at::Tensor&, std::optional<c10::SymInt>);
using Product = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, c10::string_view,
                           c10::List<std::optional<at::Scalar>>, std::optional<c10::string_view>);

// Whether the library multiplies packed bfloat16 here. Where it does not (no AVX-512), rows of bfloat16 are widened,
// and float32's rate is what they can reach.
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
  if (dtype == at::kBFloat16 && !packs_bfloat16()) dtype = at::kFloat;
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
  std::printf("{\"threads\":%d,\"readGBs\":%.2f,\"products\":[", at::get_num_threads(), read_gbs());
  const char* comma = "";
  for (const auto& [name, dtype] : {std::pair{"bfloat16", at::kBFloat16}, std::pair{"float32", at::kFloat}})
    for (const int64_t rows : {1, 16, 64, 256, 1024}) {
      std::printf("%s{\"dtype\":\"%s\",\"rows\":%ld,\"gflops\":%.1f}", comma, name, static_cast<long>(rows),
                  gflops(dtype, rows));
      comma = ",";
    }
  std::printf("]}\n");
}
