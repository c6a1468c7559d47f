// Every kernel on real sizes: its error against plain ATen, its rate, and ATen's time for the same work.
//   build/bench/kernels [threads] [products|attention]      `node scripts/setup.mjs --bench` builds it
// Each time is the first decile of many short runs over weights that no cache holds, so that a loaded machine says
// little.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max.h>
#include <ATen/ops/normal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/pages.h"
#include "kernels/packed.h"
#include "kernels/team.h"

using namespace c2c;

namespace {

double seconds(const std::function<void(int)>& work, int runs) {
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work(i);
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 10];
}

double error_of(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor reference = expected.to(at::kDouble);
  return ((actual.to(at::kDouble) - reference).abs().max() / reference.abs().max()).item<double>();
}

const char* name_of(Store store) {
  return store == Store::kFloat  ? "float32"
         : store == Store::kBf16 ? "bfloat16"
         : store == Store::kInt8 ? "int8"
                                 : "int4";
}

void multiply(const Packed& w, const at::Tensor& x, at::Tensor& y, std::vector<std::vector<std::byte>>& scratch) {
  run_team(at::get_num_threads(), [&](const Member& m) {
    Product p = w.product();
    p.x = x.const_data_ptr();
    p.x_stride = x.size(1);
    p.out = y.data_ptr();
    p.out_stride = p.outputs = y.size(1);
    p.rows = x.size(0);
    std::byte* own = scratch[static_cast<size_t>(m.index)].data();
    if (is_quantised(w.store) && p.rows <= kCodedRows) {
      auto* codes = reinterpret_cast<RowCodes*>(own);
      kernels().encode(static_cast<const Bf16*>(p.x), p.x_stride, p.rows, p.in, codes);
      p.codes = codes;
    }
    const auto [begin, end] = m.share(w.blocks);
    kernels().product(p, begin, end, own);
  });
}

void products() {
  constexpr int64_t kIn = 1024, kOut = 3072;
  constexpr int kWeights = 24;  // together larger than a last-level cache's share
  for (const Store store : {Store::kBf16, Store::kFloat, Store::kInt8, Store::kInt4}) {
    const auto type = store == Store::kFloat ? at::kFloat : at::kBFloat16;
    std::vector<at::Tensor> plain;
    std::vector<Packed> packed(kWeights);
    PackedWeights weights;
    for (int i = 0; i < kWeights; ++i) {
      plain.push_back(at::randn({kOut, kIn}).to(type));
      weights.add({{plain.back()}, {}, false, store}, &packed[static_cast<size_t>(i)]);
    }
    weights.pack();
    std::vector<std::vector<std::byte>> scratch(
        static_cast<size_t>(at::get_num_threads()),
        std::vector<std::byte>(static_cast<size_t>(product_scratch(store, kIn))));
    const double bytes = static_cast<double>(weights.bytes()) / kWeights;
    for (const int64_t rows : {1, 2, 4, 8, 16, 64, 256, 1024}) {
      const at::Tensor x = at::randn({rows, kIn}).to(type);
      at::Tensor y = at::zeros({rows, kOut});
      const int runs = rows >= 256 ? 20 : 120;
      const double ours =
          seconds([&](int i) { multiply(packed[static_cast<size_t>(i % kWeights)], x, y, scratch); }, runs);
      multiply(packed[0], x, y, scratch);
      const double off = error_of(y, at::linear(x.to(at::kFloat), plain[0].to(at::kFloat)));
      const double theirs = seconds([&](int i) { at::linear(x, plain[static_cast<size_t>(i % kWeights)]); }, runs / 4);
      std::printf("product   %-8s %5ld rows  %7.1f GB/s %7.0f GFLOP/s  ATen %5.2f x the time  error %.1e\n",
                  name_of(store), static_cast<long>(rows), bytes / ours / 1e9,
                  2.0 * static_cast<double>(rows * kIn * kOut) / ours / 1e9, theirs / ours, off);
    }
  }
}

void attention() {
  constexpr int64_t kHeads = 16, kKv = 8, kDim = 128, kGroup = kHeads / kKv, kCaches = 16;
  for (const bool bf16 : {true, false}) {
    const auto type = bf16 ? at::kBFloat16 : at::kFloat;
    for (const int64_t seen : {64, 256, 1024, 4096}) {
      // As a decoder's arena lies: keys and values of a layer behind each other, in large pages.
      at::Tensor arena = at::empty({kCaches, 2, seen, kKv, kDim}, at::TensorOptions().dtype(type));
      ask_for_large_pages(arena.data_ptr(), arena.nbytes());
      arena.normal_();
      const at::Tensor room = at::randn({kHeads + 3, kDim}).to(type), query = room.narrow(0, 0, kHeads).unsqueeze(0);
      const int members = at::get_num_threads();
      at::Tensor out = at::zeros({members, kHeads, kDim});
      at::Tensor top = at::zeros({members, kHeads}), mass = at::zeros({members, kHeads});
      // As a decoder cuts one row's work from 256 rows on: by rows, each part with all heads.
      const auto attend = [&](int i) {
        const at::Tensor cache = arena[i % kCaches];
        const RowRun run{cache[0].const_data_ptr(), cache[1].const_data_ptr(), kKv * kDim, seen};
        run_team(members, [&](const Member& m) {
          Attention a{.bf16 = bf16, .sight = {&run, seen}};
          std::tie(a.begin, a.end) = m.share(seen);
          a.heads = kKv;
          a.dim = kDim;
          a.group = kGroup;
          a.query = query.const_data_ptr();
          a.scale = 0.088F;
          a.out = out.data_ptr<float>() + m.index * kHeads * kDim;
          a.top = top.data_ptr<float>() + m.index * kHeads;
          a.mass = mass.data_ptr<float>() + m.index * kHeads;
          kernels().attend(a);
        });
      };
      const auto joined = [&] {
        const at::Tensor share = (top - std::get<0>(top.max(0))).exp();
        return (out * share.unsqueeze(-1)).sum(0) / (mass * share).sum(0).unsqueeze(-1);
      };
      const auto plain = [&](int i) {
        const auto by_head = [](const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
        return at::scaled_dot_product_attention(by_head(query), by_head(arena[i % kCaches][0]),
                                                by_head(arena[i % kCaches][1]), {}, 0.0, false, 0.088, true);
      };
      const double ours = seconds(attend, 200), theirs = seconds(plain, 50);
      attend(0);
      const double off = error_of(joined(), plain(0).reshape({kHeads, kDim}));
      const double bytes = static_cast<double>(2 * seen * kKv * kDim * (bf16 ? 2 : 4));
      std::printf("attention %-8s %5ld rows  %7.1f GB/s %24s %5.1f x the time  error %.1e\n",
                  bf16 ? "bfloat16" : "float32", static_cast<long>(seen), bytes / ours / 1e9, "ATen", theirs / ours,
                  off);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) at::set_num_threads(std::atoi(argv[1]));
  const std::string_view only = argc > 2 ? argv[2] : "";
  const at::Tensor much = at::randn({int64_t{1} << 26});
  const double read = seconds([&](int i) { at::sum(much.narrow(0, i % 8 << 23, int64_t{1} << 23)); }, 80);
  std::printf("kernels %s, %d threads; reading %.1f GB/s\n", kernels().name, at::get_num_threads(),
              (4 << 23) / read / 1e9);
  if (only != "attention") products();
  if (only != "products") attention();
  return 0;
}
