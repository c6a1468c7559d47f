// Decode and prefill of a decoder of Qwen3-0.6B's size (random weights) on a CUDA device, beside their floors: a row of
// JSON for each measurement.
//   build/bench/cuda
// Floors: bytes that must be read ÷ the bandwidth of a large read or copy in the same run, and products' FLOPs ÷ the
// best rate of a large product.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <deque>
#include <functional>
#include <string>

#include "cuda/cuda.h"
#include "model/decoder.h"

using namespace c2c;

namespace {

const at::Device kDevice(at::kCUDA, 0);

void wait() { at::detail::getCUDAHooks().deviceSynchronize(0); }

// Median of runs, each waited for, in milliseconds.
double timed(int runs, const std::function<void()>& work) {
  std::vector<double> times;
  for (int i = 0; i < runs + 3; ++i) {
    wait();
    const auto start = std::chrono::steady_clock::now();
    work();
    wait();
    if (i >= 3)
      times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

DecoderSpec qwen(bool sharer) {
  DecoderSpec s;
  s.hidden = sharer ? 896 : 1024;
  s.heads = sharer ? 14 : 16;
  s.kv_heads = sharer ? 2 : 8;
  s.head_dim = sharer ? 64 : 128;
  s.intermediate = sharer ? 4864 : 3072;
  s.vocab = 151936;
  s.context = 40960;
  s.query_scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  s.qk_norm = !sharer;
  s.qkv_bias = sharer;
  s.tied = true;
  s.ropes.emplace_back();
  for (int64_t i = 0; i < s.head_dim / 2; ++i)
    s.ropes[0].push_back(std::pow(1e6, -2.0 * static_cast<double>(i) / static_cast<double>(s.head_dim)));
  s.layers.resize(sharer ? 24 : 28);
  return s;
}

std::unique_ptr<Decoder> model_of(const DecoderSpec& spec, at::ScalarType type) {
  const at::TensorOptions options = at::TensorOptions().dtype(type).device(kDevice);
  std::unordered_map<std::string, at::Tensor> tensors;
  for (const auto& [name, shape] : weight_shapes(spec))
    tensors[name] =
        name.find("norm") != std::string::npos ? at::ones(shape, options) : at::randn(shape, options) * 0.02;
  return std::make_unique<Decoder>(spec, std::move(tensors), type, Quantize::kNone, kDevice);
}

Request request(KvCache& cache, int64_t rows, Logits logits) {
  Request r{&cache, {}, {}, logits};
  for (int64_t i = 0; i < rows; ++i) r.tokens.push_back(static_cast<uint32_t>((cache.length() + i) * 7919 % 151936));
  return r;
}

void row(const char* suite, const char* variant, const char* dtype, int64_t prompt, double ms, double floor) {
  std::printf(
      "{\"suite\":\"%s\",\"variant\":\"%s\",\"dtype\":\"%s\",\"prompt\":%lld,\"ms\":%.4f,\"floorMs\":%.4f,"
      "\"overFloor\":%.3f}\n",
      suite, variant, dtype, static_cast<long long>(prompt), ms, floor, ms / floor);
  std::fflush(stdout);
}

}  // namespace

int main() {
  if (!cuda::compiled() || !at::globalContext().hasCUDA() || at::detail::getCUDAHooks().deviceCount() == 0) {
    std::printf("not run: %s\n", cuda::compiled() ? "no CUDA device" : "built without CUDA");
    return 77;
  }
  const at::TensorOptions bytes_on = at::TensorOptions().dtype(at::kFloat).device(kDevice);
  const int64_t large = int64_t{1} << 30;  // 4 GB
  double bandwidth = 0;                    // bytes a millisecond
  {
    const at::Tensor from = at::randn({large}, bytes_on), to = at::empty({large}, bytes_on);
    const double copy = 2.0 * 4 * static_cast<double>(large) / timed(5, [&] { to.copy_(from); });
    const double read = 4.0 * static_cast<double>(large) / timed(5, [&] { at::sum(from); });
    bandwidth = std::max(copy, read);
    std::printf("{\"suite\":\"machine\",\"copyGBs\":%.0f,\"readGBs\":%.0f}\n", copy / 1e6, read / 1e6);
  }
  for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
    const char* dtype = type == at::kBFloat16 ? "bfloat16" : "float32";
    const double item = type == at::kBFloat16 ? 2 : 4;
    double rate = 0;  // FLOPs a millisecond
    {
      const int64_t n = type == at::kBFloat16 ? 8192 : 4096;
      const at::Tensor a = at::randn({n, n}, bytes_on).to(type), b = at::randn({n, n}, bytes_on).to(type);
      rate = 2 * std::pow(static_cast<double>(n), 3) / timed(5, [&] { at::matmul(a, b); });
    }
    std::printf("{\"suite\":\"machine\",\"dtype\":\"%s\",\"tflops\":%.1f}\n", dtype, rate / 1e9);
    const DecoderSpec spec = qwen(false);
    const auto model = model_of(spec, type), sharer = model_of(qwen(true), type);
    const double weights = static_cast<double>(model->bytes());
    const double row_bytes = static_cast<double>(model->layout().row_bytes());
    for (const int64_t prompt : {16, 1024}) {
      for (const int64_t batch : {1, 8}) {
        std::deque<KvCache> caches;
        std::vector<Request> requests;
        for (int64_t i = 0; i < batch; ++i) {
          caches.emplace_back(model->layout(), prompt + 256, true);
          std::vector<Request> one{request(caches.back(), prompt, Logits::kNone)};
          model->forward(one, nullptr);
        }
        const double ms = timed(60, [&] {
          requests.clear();
          for (KvCache& cache : caches) requests.push_back(request(cache, 1, Logits::kLast));
          model->forward(requests, nullptr);
        });
        const double floor =
            (weights + static_cast<double>(batch) * row_bytes * static_cast<double>(prompt + 32)) / bandwidth;
        row("decode", batch == 1 ? "one" : "batch8", dtype, prompt, ms, floor);
      }
    }
    const double products = static_cast<double>(model->bytes()) / item -
                            static_cast<double>(spec.vocab * spec.hidden);  // weights of the layers
    for (const int64_t prompt : {64, 256, 1024}) {
      KvCache cache(model->layout(), prompt, false), other(sharer->layout(), prompt, false);
      const auto fill = [&](const Decoder& decoder, KvCache& into) {
        into.truncate(0);
        std::vector<Request> one{request(into, prompt, Logits::kNone)};
        decoder.forward(one, nullptr);
      };
      const double n = static_cast<double>(prompt);
      const double attention = 2.0 * 28 * 16 * 128 * n * n;  // both products, the causal half
      const double floor = std::max((2 * products * n + attention) / rate,
                                    (weights - static_cast<double>(spec.vocab * spec.hidden) * item) / bandwidth);
      row("prefill", "receiver", dtype, prompt, timed(15, [&] { fill(*model, cache); }), floor);
      const double apart = timed(15, [&] {
        fill(*model, cache);
        fill(*sharer, other);
      });
      row("prefill", "receiver and sharer, one stream", dtype, prompt, apart, apart);
      const double both = timed(15, [&] {
        cuda::side_by_side(kDevice, {[&] { fill(*model, cache); }, [&] { fill(*sharer, other); }});
      });
      row("prefill", "receiver and sharer, two streams", dtype, prompt, both, apart);
    }
  }
  return 0;
}
