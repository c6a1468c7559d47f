// A fusion of the size of Qwen2.5-0.5B's cache into Qwen3-0.6B's (random weights) on a CUDA device, beside its floor: a
// row of JSON for each measurement.
//   build/bench/cuda_fusion [--sweep]
// Floor: the same bare batched products in the same run, or the bytes that must be read and written ÷ the bandwidth of
// a large copy in the same run, the larger. `ms` ends when the report is with the caller. --sweep: the time by the
// number of towers whose intermediate rows are in use at once.
#include <cstdio>

#ifdef C2C_CUDA
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>

#include "cuda/cuda.h"
#include "cuda/stacked_tower.h"

using namespace c2c;

namespace {

const at::Device kDevice(at::kCUDA, 0);
const HeadShape kReceiver{8, 128}, kSharer{2, 64};
constexpr int64_t kLayers = 28, kSharerLayers = 24, kHidden = 1024;
constexpr int kRuns = 25;

class Event {
 public:
  Event() { C10_CUDA_CHECK(cudaEventCreate(&event_)); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }
  void record() { C10_CUDA_CHECK(cudaEventRecord(event_, c10::cuda::getCurrentCUDAStream())); }
  double since(const Event& start) {
    float ms = 0;
    C10_CUDA_CHECK(cudaEventSynchronize(event_));
    C10_CUDA_CHECK(cudaEventElapsedTime(&ms, start.event_, event_));
    return ms;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// Median milliseconds of runs, each of which begins on an idle device.
double timed(const std::function<void()>& work) {
  Event start, end;
  std::vector<double> times;
  for (int i = 0; i < kRuns + 5; ++i) {
    at::detail::getCUDAHooks().deviceSynchronize(0);
    start.record();
    work();
    end.record();
    const double ms = end.since(start);
    if (i >= 5) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

at::TensorOptions options(at::ScalarType type) { return at::TensorOptions().dtype(type).device(kDevice); }

// Read plus written, in bytes a millisecond.
double bandwidth() {
  const at::Tensor from = at::randn({int64_t{1} << 28}, options(at::kFloat)), to = at::empty_like(from);
  return 2 * static_cast<double>(from.nbytes()) / timed([&] { to.copy_(from); });
}

Tensors layer_weights(at::ScalarType type, bool key_open, bool value_open) {
  Tensors weights;
  for (const std::string part : {"key", "value"}) {
    const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
      weights[part + name + ".weight"] = at::randn({out, in}, options(type)) / std::sqrt(static_cast<double>(in));
      if (bias) weights[part + name + ".bias"] = at::randn({out}, options(type));
    };
    linear("_in", kHidden, kSharer.width() + kReceiver.width(), true);
    for (const char* name : {"_mlp1", "_scalar_mlp2", "_proj_mlp2"}) {
      const std::string block = std::string(name) + ".blocks.0";
      weights[part + block + ".norm.weight"] = at::ones({kHidden}, options(type));
      linear(block + ".w1", kHidden, kHidden, false);
      linear(block + ".w2", kHidden, kHidden, false);
    }
    linear("_scalar_head", kReceiver.kv_heads, kHidden, true);
    linear("_proj_out", kReceiver.width(), kHidden, true);
    const bool open = part == "key" ? key_open : value_open;
    weights[part + "_gate_logit"] = at::full({}, open ? 1 : -1, options(type));
  }
  return weights;
}

std::shared_ptr<Fuser> make_fuser(at::ScalarType type, const std::string& variant) {
  auto fuser = std::make_shared<Fuser>();
  fuser->receiver = kReceiver;
  fuser->sharer = kSharer;
  fuser->dtype = type;
  fuser->device = kDevice;
  for (int64_t i = 0; i < kLayers; ++i) {
    // Half: every other layer's keys and the others' values, so that the batch's rows are no regular view.
    const bool all = variant == "open", half = variant == "half";
    auto weights = layer_weights(type, all || (half && i % 2 == 0), all || (half && i % 2 == 1));
    fuser->layers.push_back({i, std::max<int64_t>(0, i - 4),
                             make_projector("C2CProjector", {}, kReceiver, kSharer, std::move(weights), type)});
  }
  return fuser;
}

std::shared_ptr<KvCache> make_cache(HeadShape heads, int64_t layers, int64_t rows, at::ScalarType type) {
  const CacheLayout layout{layers, heads.kv_heads, heads.head_dim, 40960, type, kDevice};
  auto cache = std::make_shared<KvCache>(layout, rows + 64, true);
  const std::vector<uint32_t> ids(static_cast<size_t>(rows), 1);
  cache->reserve(rows);
  for (int64_t layer = 0; layer < layers; ++layer)
    for (int64_t part = 0; part < 2; ++part)
      cache->rows(layer, part, 0, rows).copy_(at::randn({rows, heads.kv_heads, heads.head_dim}, options(at::kFloat)));
  cache->commit(ids.data(), ids.data(), rows);
  return cache;
}

// The bare products of a batch's towers, in so many batches.
double products(const cuda::StackedTowers& towers, int64_t rows, at::ScalarType type, int64_t batches) {
  struct Product {
    at::Tensor x, w, out;
  };
  std::vector<Product> all;
  const auto n = static_cast<int64_t>(towers.members().size()), most = (n + batches - 1) / batches;
  for (const auto& [in, out] : towers.products())
    all.push_back({at::randn({most, rows, in}, options(type)), at::randn({n, out, in}, options(type)),
                   at::empty({most, rows, out}, options(type))});
  return timed([&] {
    for (int64_t first = 0; first < n; first += most) {
      const int64_t count = std::min(most, n - first);
      for (const Product& p : all) {
        at::Tensor out = p.out.narrow(0, 0, count);
        at::bmm_out(out, p.x.narrow(0, 0, count), p.w.narrow(0, first, count).transpose(1, 2));
      }
    }
  });
}

const char* name_of(at::ScalarType type) { return type == at::kFloat ? "float32" : "bfloat16"; }

std::shared_ptr<const cuda::StackedTowers> towers_of(const Fuser& fuser) {
  return std::dynamic_pointer_cast<const cuda::StackedTowers>(fuser.prepared);
}

void measure(const std::string& variant, at::ScalarType type, double rate) {
  const auto fuser = make_fuser(type, variant);
  for (const int64_t prompt : {16, 64, 256, 1024}) {
    const auto receiver = make_cache(kReceiver, kLayers, prompt, type);
    const auto sharer = make_cache(kSharer, kSharerLayers, prompt, type);
    const std::vector<Contribution> contributions{{fuser, sharer, {{0, prompt, 0, prompt}}}};
    const auto work = [&] {
      if (!cuda::fuse(*receiver, contributions, false, nullptr)) throw std::runtime_error("no form of this fusion");
    };
    const double ms = timed(work);
    const auto towers = towers_of(*fuser);
    const auto n = static_cast<double>(towers->members().size());
    if (n == 0) {
      std::printf("{\"suite\":\"fusion\",\"variant\":\"%s\",\"dtype\":\"%s\",\"prompt\":%ld,\"ms\":%.4f}\n",
                  variant.c_str(), name_of(type), static_cast<long>(prompt), ms);
      continue;
    }
    double product = 1e30;
    for (const int64_t batches : {1, 2, 4, 7}) product = std::min(product, products(*towers, prompt, type, batches));
    // Rows are read from sharer and receiver, and the receiver's are written.
    const double item = type == at::kFloat ? 4 : 2;
    const double rows =
        n * static_cast<double>(prompt) * item * static_cast<double>(kSharer.width() + 2 * kReceiver.width());
    const double bytes = (static_cast<double>(towers->bytes()) + rows) / rate, floor = std::max(product, bytes);
    std::printf(
        "{\"suite\":\"fusion\",\"variant\":\"%s\",\"dtype\":\"%s\",\"prompt\":%ld,\"ms\":%.4f,\"floorMs\":%.4f,"
        "\"overFloor\":%.3f,\"floor\":{\"productMs\":%.4f,\"bytesMs\":%.4f}}\n",
        variant.c_str(), name_of(type), static_cast<long>(prompt), ms, floor, ms / floor, product, bytes);
    std::fflush(stdout);
  }
}

void sweep(at::ScalarType type) {
  const auto fuser = make_fuser(type, "open");
  for (const int64_t prompt : {64, 256, 1024, 4096}) {
    const auto receiver = make_cache(kReceiver, kLayers, prompt, type);
    const auto sharer = make_cache(kSharer, kSharerLayers, prompt, type);
    const std::vector<FuseSpan> spans{{0, prompt, 0, prompt}};
    if (!cuda::fuse(*receiver, {{fuser, sharer, spans}}, false, nullptr)) throw std::runtime_error("no form");
    const auto towers = towers_of(*fuser);
    const auto from = cuda::sharer_places(*sharer, spans, towers->layers(*fuser, false), kDevice, type);
    const auto onto = cuda::places_in(*receiver, spans, true, towers->layers(*fuser, true), kDevice).value();
    std::printf("{\"sweep\":\"towers at once\",\"dtype\":\"%s\",\"prompt\":%ld", name_of(type),
                static_cast<long>(prompt));
    for (const int64_t at_once : {0, 2, 4, 6, 8, 12, 14, 19, 28, 56}) {
      const double ms = timed([&] { towers->project(from, onto, onto, prompt, at_once); });
      std::printf(",\"%ld\":%.4f", static_cast<long>(at_once), ms);
    }
    std::printf("}\n");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const at::NoGradGuard no_grad;
  if (!cuda::compiled() || at::detail::getCUDAHooks().deviceCount() == 0) {
    std::fprintf(stderr, "no CUDA device\n");
    return 1;
  }
  if (argc > 1 && std::strcmp(argv[1], "--sweep") == 0) {
    for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) sweep(type);
    return 0;
  }
  const double rate = bandwidth();
  std::printf("{\"bandwidthGBs\":%.0f}\n", rate / 1e6);
  for (const at::ScalarType type : {at::kBFloat16, at::kFloat})
    for (const char* variant : {"open", "half", "closed"}) measure(variant, type, rate);
  return 0;
}
#else
int main() {
  std::fprintf(stderr, "built without CUDA\n");
  return 1;
}
#endif
