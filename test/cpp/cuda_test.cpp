// Decoders and caches on a CUDA device against the CPU's plain path. Prints "N passed, N failed"; without a device (or
// without the kernels) it says so and returns 77, which is neither.
#include <ATen/Context.h>
#include <ATen/ops/cat.h>

#include <deque>

#include "cache/edit.h"
#include "cache/file.h"
#include "cache/quantized.h"
#include "check.h"
#include "cuda/cuda.h"
#include "cuda_device.h"
#include "decoders.h"

#ifdef C2C_EMULATED
#include "cuda/runner.h"
#include "emulator.h"
#endif

using namespace c2c;

namespace {

size_t graphs_played() {
#ifdef C2C_EMULATED
  return emulated::played();
#else
  return 0;
#endif
}

// A decoder's kernels on the device.
class Kernels {
 public:
  explicit Kernels(const Decoder& decoder) : decoder_(decoder) {
#ifdef C2C_EMULATED
    weights_ = decoder.weights();
    stack_weights(weights_);  // as a decoder on a device has them
    runner_ = std::make_unique<cuda::CudaRunner>(decoder.spec(), weights_, decoder.dtype());
#endif
  }
  std::vector<at::Tensor> forward(std::vector<Request>& batch) const {
    return runner_ ? decoder_.forward_on(*runner_, batch, nullptr) : decoder_.forward(batch, nullptr);
  }

 private:
  const Decoder& decoder_;
  DecoderWeights weights_;
  std::unique_ptr<Runner> runner_;
};

// Shapes that the kernels of single rows take.
std::vector<Kind> step_kinds() {
  std::vector<Kind> all;
  const auto add = [&](const std::string& name, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t dim,
                       int64_t inner, const std::function<void(DecoderSpec&)>& change) {
    DecoderSpec s = base();
    s.hidden = hidden;
    s.heads = heads;
    s.kv_heads = kv_heads;
    s.head_dim = dim;
    s.intermediate = inner;
    s.query_scale = 1 / std::sqrt(static_cast<double>(dim));
    s.ropes[0].clear();
    for (int64_t i = 0; i < dim / 2; ++i)
      s.ropes[0].push_back(std::pow(1e4, -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
    change(s);
    all.push_back({name, s});
  };
  add("step, two heads a group", 256, 4, 2, 64, 520, [](DecoderSpec& s) { s.qk_norm = true; });
  add("step, seven heads a group, biases", 320, 14, 2, 64, 1000,
      [](DecoderSpec& s) { s.qkv_bias = s.output_bias = s.mlp_bias = true; });
  add("step, one head a group, long rows", 1032, 8, 8, 128, 4120,
      [](DecoderSpec& s) { s.activation = Activation::kGelu; });
  add("step, three heads a group, small heads, windows", 96, 6, 2, 32, 72, [](DecoderSpec& s) {
    s.layers = {{0, 20}, {0, 0}, {0, 1000}};
    s.tied = false;
    s.head = "lm_head.weight";
    s.embedding_scale = 3.7;
    s.logit_softcap = 9;
  });
  add("step, wide heads", 128, 2, 1, 128, 256, [](DecoderSpec&) {});
  return all;
}

// A long prompt and steps behind it, alone and eight at once, some on forks.
std::vector<at::Tensor> long_story(const Decoder& model, const Forward& forward) {
  std::vector<at::Tensor> seen;
  KvCache first(model.layout(), 8, true);
  std::vector<std::shared_ptr<KvCache>> caches;
  const auto go = [&](std::vector<Request> batch) {
    for (const at::Tensor& t : forward(batch))
      if (t.defined()) seen.push_back(t.cpu().clone());
  };
  go({request(first, 0, 700, Logits::kLast)});
  for (uint32_t i = 700; i < 704; ++i) go({request(first, i, i + 1, Logits::kLast)});
  for (int i = 0; i < 8; ++i) {
    caches.push_back(first.fork());
    if (i % 2 == 1) caches.back()->truncate(100 + 40 * i);
  }
  for (uint32_t step = 0; step < 4; ++step) {
    std::vector<Request> batch;
    for (int i = 0; i < (step == 3 ? 3 : 8); ++i) {
      const auto at = static_cast<uint32_t>(caches[static_cast<size_t>(i)]->length());
      batch.push_back(request(*caches[static_cast<size_t>(i)], at, at + 1, Logits::kLast));
    }
    go(std::move(batch));
  }
  for (int64_t layer = 0; layer < model.layout().layers; ++layer)
    for (int64_t part = 0; part < 2; ++part)
      seen.push_back(caches[2]->rows(layer, part, 0, caches[2]->length()).cpu().clone());
  return seen;
}

// `graphs`: whether steps are captured.
void compare(const Kind& kind, bool graphs) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const bool bf16 = type == at::kBFloat16;
    const std::string label = kind.name + (bf16 ? " bf16" : " float");
    const auto tensors = weights(kind.spec, type);
    auto wide = tensors;
    for (auto& [name, tensor] : wide) tensor = tensor.to(at::kFloat);
    const Decoder exact(kind.spec, wide, at::kFloat), rounding(kind.spec, tensors, type);
    const Decoder device(kind.spec, tensors, type, Quantize::kNone, kDevice);
    const Kernels kernels(device);
    const size_t before = graphs_played();
    using Story = std::vector<at::Tensor> (*)(const Decoder&, const Forward&);
    for (const auto& [name, tell] : {std::pair<const char*, Story>{"", story}, {", long", long_story}}) {
      if (kShort && tell == long_story) continue;
      const auto plain = [&, tell = tell](const Decoder& d) {
        return tell(d, [&](auto& batch) { return d.plain_forward(batch, nullptr); });
      };
      const auto fast = [&, tell = tell] { return tell(device, [&](auto& batch) { return kernels.forward(batch); }); };
      const auto reference = plain(exact);
      const double limit = bf16 ? 1.3 * worst(spread_of, plain(rounding), reference) : 5e-5;
      const auto check = [&, name = name](const std::string& what, const std::vector<at::Tensor>& told) {
        run(label + name + what, [&] {
          const double error = worst(bf16 ? spread_of : error_of, told, reference);
          if (!(error < limit))
            std::printf("%s%s%s: %g, at most %g\n", label.c_str(), name, what.c_str(), error, limit);
          return error < limit;
        });
      };
      check(", kernels", fast());
      if (kEmulated) continue;  // plain operations are the processor's, and steps that repeat were captured above
      check(", captured", fast());
      check(", plain operations", plain(device));
    }
    // A long story has a step of one and a step of eight several times; behind a window that hides rows none is
    // captured.
    const bool windows =
        std::any_of(kind.spec.layers.begin(), kind.spec.layers.end(), [](const LayerSpec& l) { return l.window > 0; });
    if (kEmulated && graphs && !windows && !kShort)
      run(label + ", steps are graphs", [&] { return graphs_played() - before >= 2; });
  }
}

// The same change to the same rows here and there.
void edits() {
  const DecoderSpec spec = step_kinds()[0].spec;
  const auto tensors = weights(spec, at::kFloat);
  const Decoder here(spec, tensors, at::kFloat), there(spec, tensors, at::kFloat, Quantize::kNone, kDevice);
  const auto made = [&](const Decoder& model, int64_t rows) {
    auto cache = std::make_shared<KvCache>(model.layout(), 8, true, model.ropes());
    std::vector<Request> batch{request(*cache, 0, static_cast<uint32_t>(rows), Logits::kNone)};
    model.forward(batch, nullptr);
    return cache;
  };
  const auto same = [&](const KvCache& a, const KvCache& b) {
    if (a.length() != b.length() || a.positions() != b.positions() || a.tokens() != b.tokens()) return false;
    for (int64_t layer = 0; layer < a.layout().layers; ++layer)
      for (int64_t part = 0; part < 2; ++part)
        if (!(error_of(b.rows(layer, part, 0, b.length()).cpu(), a.rows(layer, part, 0, a.length())) < 2e-5))
          return false;
    return true;
  };
  using Change = std::function<std::shared_ptr<KvCache>(std::shared_ptr<KvCache>)>;
  const auto check = [&](const std::string& name, const Change& change) {
    run("cache: " + name, [&] { return same(*change(made(here, 60)), *change(made(there, 60))); });
  };
  check("as it is", [](auto c) { return c; });
  check("erase", [](auto c) { return erase(*c, 5, 17), c; });
  check("shift", [](auto c) { return shift(*c, 9), c; });
  check("truncate and grow", [&](auto c) {
    c->truncate(20);
    c->reserve(500);
    return c;
  });
  check("append and slice", [](auto c) {
    append_behind(*c, *c->fork(), 3, 30);
    return c->slice(10, 80);
  });
  check("a write shows in one of two forks", [](auto c) {
    const auto fork = c->fork();
    c->own(10, 12);
    c->put(1, 0, 10, fork->rows(1, 0, 30, 32));
    return fork;
  });
  check("what a plan keeps", [](auto c) {
    return keep(*c, {{{{0, 4}, {9, 20}}, {{0, 10}, {12, 17}}, {{30, 45}}}, true}), c;
  });
  check("quantised and read", [](auto c) {
    QuantizeReport report;
    return quantized(*c, Form::kInt8, report, nullptr);
  });
  run("cache: decode behind quantised rows", [&] {
    std::vector<at::Tensor> logits;
    for (const Decoder* model : {&here, &there}) {
      QuantizeReport report;
      const auto cache = quantized(*made(*model, 60), Form::kInt8, report, nullptr);
      for (uint32_t i = 60; i < 63; ++i) {
        std::vector<Request> batch{request(*cache, i, i + 1, Logits::kLast)};
        logits.push_back(model->forward(batch, nullptr)[0].clone());
      }
    }
    return error_of(logits[5], logits[2]) < 1e-4;
  });
  run("cache: a file holds the same bytes", [&] {
    const auto bytes = [](const KvCache& cache) {
      std::vector<std::byte> all;
      for (const FileTensor& t : plan_file(cache).tensors)
        t.write([&](const void* data, size_t size) {
          const auto* first = static_cast<const std::byte*>(data);
          all.insert(all.end(), first, first + size);
        });
      return all;
    };
    const auto cache = made(there, 40);
    KvCache copy(here.layout(), 40, true, here.ropes());
    copy.reserve(40);
    for (int64_t layer = 0; layer < 3; ++layer)
      for (int64_t part = 0; part < 2; ++part) copy.put(layer, part, 0, cache->rows(layer, part, 0, 40));
    copy.commit(cache->tokens().data(), cache->positions().data(), 40);
    return bytes(copy) == bytes(*cache);
  });
  run("cache: no memory for 10 TB",
      [&] { return throws("OUT_OF_MEMORY", [&] { KvCache(there.layout(), int64_t{1} << 31, true); }); });
  run("quantised weights are UNSUPPORTED",
      [&] { return throws("UNSUPPORTED", [&] { Decoder(spec, tensors, at::kFloat, Quantize::kInt8, kDevice); }); });
}

void together() {
  run("prefills side by side", [] {
    const auto kinds = step_kinds();
    std::vector<std::unique_ptr<Decoder>> models, exact;
    for (size_t i = 0; i < 3; ++i) {
      const auto tensors = weights(kinds[i].spec, at::kFloat);
      models.push_back(std::make_unique<Decoder>(kinds[i].spec, tensors, at::kFloat, Quantize::kNone, kDevice));
      exact.push_back(std::make_unique<Decoder>(kinds[i].spec, tensors, at::kFloat));
    }
    for (int round = 0; round < 5; ++round) {
      std::deque<KvCache> caches, plain;
      std::vector<std::function<void()>> jobs;
      for (size_t i = 0; i < models.size(); ++i) {
        caches.emplace_back(models[i]->layout(), 8, true);
        plain.emplace_back(exact[i]->layout(), 8, true);
      }
      for (size_t i = 0; i < models.size(); ++i)
        jobs.emplace_back([&, i] {
          std::vector<Request> batch{request(caches[i], 0, 300, Logits::kNone)};
          models[i]->forward(batch, nullptr);
        });
      cuda::side_by_side(kDevice, jobs);
      for (size_t i = 0; i < models.size(); ++i) {
        std::vector<Request> batch{request(plain[i], 0, 300, Logits::kNone)};
        exact[i]->plain_forward(batch, nullptr);
        if (!(error_of(caches[i].rows(2, 1, 0, 300).cpu(), plain[i].rows(2, 1, 0, 300)) < 5e-5)) return false;
      }
    }
    return true;
  });
}

}  // namespace

int main() {
  if (!cuda_device()) return kNotRun;
  at::manual_seed(1);
  for (const Kind& kind : kinds()) compare(kind, false);
  for (const Kind& kind : step_kinds()) compare(kind, true);
  if (!kEmulated) edits();
  if (!kEmulated) together();
  return result();
}
