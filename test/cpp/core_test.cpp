// Sampler, tensor table and decoder without JavaScript. Prints "N passed, N failed".
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <numeric>
#include <random>

#include "check.h"
#include "core/memory.h"
#include "decode/sampler.h"
#include "model/decoder.h"
#include "small_decoder.h"
#include "weights/tensor_table.h"

using namespace c2c;

namespace {

// ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────

// What an exception with this message becomes; nothing where it is about something else.
std::optional<Error> memory_error(const std::string& message) {
  return out_of_memory(c10::Error({"here", "there.cpp", 1}, message));
}

bool is_out_of(const std::optional<Error>& error, double requested, const std::string& device) {
  return error && error->code == "OUT_OF_MEMORY" &&
         error->details == Details{{"requested", requested}, {"device", device}};
}

void memory() {
  run("memory that ran out on the CPU", [] {
    return is_out_of(memory_error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. "
                                  "Error code 12 (Cannot allocate memory)"),
                     4096, "cpu") &&
           is_out_of(out_of_memory(std::bad_alloc()), 0, "cpu");
  });
  run("memory that ran out on a GPU", [] {
    const std::string rest = " has a total capacity of 79.11 GiB of which 1.00 GiB is free.";
    return is_out_of(memory_error("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0" + rest), 2.5 * 0x1p30,
                     "cuda:0") &&
           is_out_of(memory_error("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 3" + rest), 20 * 0x1p20,
                     "cuda:3") &&
           is_out_of(memory_error("CUDA out of memory. Tried to allocate 512 bytes. GPU 11" + rest), 512, "cuda:11");
  });
  run("other exceptions are not about memory", [] {
    return !memory_error("CUDA error: an illegal memory access was encountered") && !memory_error("") &&
           !out_of_memory(std::runtime_error("no such key"));
  });
}

// ── sampler ──────────────────────────────────────────────────────────────────────────────────────────────────────────

void samplers() {
  const std::vector<float> row{0, 3, 2.5F, -1};
  run("greedy takes the largest", [&] { return Sampler({}).pick(row.data(), 4) == 1; });
  run("a repetition penalty divides positive and multiplies negative logits", [&] {
    SamplerOptions options;
    options.repetition = 2;
    options.history = {1};
    return Sampler(options).pick(row.data(), 4) == 2;
  });
  run("the choice counts for the next penalty", [&] {
    SamplerOptions options;
    options.frequency = 1;
    Sampler sampler(options);
    return sampler.pick(row.data(), 4) == 1 && sampler.pick(row.data(), 4) == 2;
  });
  run("top-p keeps the token that crosses p and no more", [] {
    const std::vector<float> even{1, 1, 1, 1};
    SamplerOptions options;
    options.temperature = 1;
    options.top_p = 0.3;
    Sampler sampler(options);
    bool second = false;
    for (int i = 0; i < 200; ++i) {
      const uint32_t id = sampler.pick(even.data(), 4);
      if (id > 1) return false;
      second = second || id == 1;
    }
    return second;
  });
  run("top-k and min-p cut the tail", [&] {
    SamplerOptions options;
    options.temperature = 10;
    options.top_k = 2;
    Sampler top(options);
    options.top_k = 0;
    options.temperature = 1;
    options.min_p = 0.5;
    Sampler min(options);
    for (int i = 0; i < 200; ++i) {
      const uint32_t a = top.pick(row.data(), 4), b = min.pick(row.data(), 4);
      if ((a != 1 && a != 2) || (b != 1 && b != 2)) return false;
    }
    return true;
  });
  run("limits draw what a sorted vocabulary would", [] {
    // The rules in their plainest form: sort everything, cut, draw.
    const auto plain = [](const SamplerOptions& o, std::mt19937_64& random, const std::vector<float>& logits) {
      std::vector<uint32_t> order(logits.size());
      std::iota(order.begin(), order.end(), 0U);
      std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
      if (o.top_k > 0) order.resize(static_cast<size_t>(o.top_k));
      std::vector<double> weights;
      for (const uint32_t id : order)
        weights.push_back(std::exp((logits[id] - static_cast<double>(logits[order[0]])) / o.temperature));
      double all = std::accumulate(weights.begin(), weights.end(), 0.0), sum = 0;
      size_t keep = 0;
      while (keep < weights.size() && (sum < o.top_p * all || keep == 0)) sum += weights[keep++];
      while (keep > 1 && weights[keep - 1] < o.min_p) --keep;
      all = std::accumulate(weights.begin(), weights.begin() + static_cast<int64_t>(keep), 0.0);
      double left = static_cast<double>(random() >> 11) * 0x1.0p-53 * all;
      size_t i = 0;
      while (i + 1 < keep && left >= weights[i]) left -= weights[i++];
      return order[i];
    };
    std::mt19937_64 numbers(3);
    std::normal_distribution<float> normal;
    for (const double spread : {0.1, 3.0})
      for (const int64_t top_k : {0, 7})
        for (const double top_p : {1.0, 0.999, 0.9, 0.2})
          for (const double min_p : {0.0, 0.01, 0.5}) {
            if (top_k == 0 && top_p == 1 && min_p == 0) continue;  // drawn in the order of ids
            const SamplerOptions options{.temperature = 0.7, .top_k = top_k, .top_p = top_p, .min_p = min_p, .seed = 5};
            Sampler sampler(options);
            std::mt19937_64 random(5);
            for (int i = 0; i < 20; ++i) {
              std::vector<float> logits(3001);
              // Rounded, so that some are equal.
              for (float& x : logits) x = std::round(normal(numbers) * static_cast<float>(spread) * 64) / 64;
              if (sampler.pick(logits.data(), 3001) != plain(options, random, logits)) return false;
            }
          }
    return true;
  });
  run("hidden tokens and what is not a number are not drawn", [] {
    const float hidden = -std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> some{nan, hidden, 1, hidden, 1, nan}, none{nan, nan, nan};
    for (const double top_p : {1.0, 0.9}) {
      Sampler sampler({.temperature = 1, .top_p = top_p});
      for (int i = 0; i < 50; ++i) {
        const uint32_t id = sampler.pick(some.data(), 6);
        if ((id != 2 && id != 4) || sampler.pick(none.data(), 3) != 0) return false;
      }
    }
    return Sampler({}).pick(some.data(), 6) == 2 && Sampler({}).pick(none.data(), 3) == 0;
  });
  run("a seed repeats its choices", [&] {
    SamplerOptions options;
    options.temperature = 2;
    options.seed = 42;
    Sampler a(options), b(options);
    for (int i = 0; i < 50; ++i) {
      if (a.pick(row.data(), 4) != b.pick(row.data(), 4)) return false;
    }
    return true;
  });
}

// ── tensor table ─────────────────────────────────────────────────────────────────────────────────────────────────────

void tables() {
  const std::string path = "/tmp/c2c_core_test_" + std::to_string(::getpid());
  const std::vector<float> values{1, 2, 3, 4};
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(values.data()), 16);
  const auto table = [&](TensorEntry entry) { return TensorTable{{path}, {std::move(entry)}}; };
  run("maps and converts", [&] {
    const auto same = map_tensors(table({"a", "F32", {2, 2}, 0, 0, 16}), at::kFloat).at("a");
    const auto half = map_tensors(table({"a", "F32", {4}, 0, 0, 16}), at::kBFloat16).at("a");
    return same[1][1].item().toDouble() == 4 && half.scalar_type() == at::kBFloat16 && half[2].item().toDouble() == 3;
  });
  run("entries that do not fit the file", [&] {
    const std::vector<TensorEntry> bad{{"a", "F32", {5}, 0, 0, 20},
                                       {"a", "F32", {3}, 0, 0, 16},
                                       {"a", "F32", {4}, 0, 4, 20},
                                       {"a", "F32", {4}, 1, 0, 16},
                                       {"a", "I8", {16}, 0, 0, 16},
                                       {"a", "F32", {-4}, 0, 0, 16},
                                       {"a", "F32", {INT64_MAX / 2, 8}, 0, 0, 16},
                                       {"a", "F32", {0, INT64_MAX, INT64_MAX}, 0, 0, 0},
                                       {"a", "F32", {1, 1, 1, 1, 1, 1, 1, 1, 4}, 0, 0, 16}};
    for (const auto& entry : bad) {
      if (!throws("FILE_INVALID", [&] { map_tensors(table(entry), at::kFloat); })) return false;
    }
    return true;
  });
  run("a missing file and a folder", [&] {
    return throws("IO_FAILED",
                  [] {
                    map_tensors({{"/nowhere/at/all"}, {}}, at::kFloat);
                  }) &&
           throws("IO_FAILED", [] {
             map_tensors({{"/tmp"}, {}}, at::kFloat);
           });
  });
  std::remove(path.c_str());
}

// ── decoder ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Request request(KvCache& cache, uint32_t from, uint32_t to, bool given = false) {
  Request r{&cache, {}, {}, Logits::kAll, given};
  for (uint32_t i = from; i < to; ++i) {
    r.tokens.push_back((i * 5 + 3) % 32);
    r.positions.push_back(i);
  }
  return r;
}

at::Tensor forward(const Decoder& model, Request r) {
  std::vector<Request> batch{std::move(r)};
  return model.forward(batch, nullptr)[0];
}

void decoders() {
  for (const int64_t window : {0, 3}) {
    const Decoder model(spec(window), weights(), at::kFloat);
    const std::string with = " (window " + std::to_string(window) + ")";
    KvCache whole(model.layout(), 4, true);
    const at::Tensor all = forward(model, request(whole, 0, 12));
    run("pieces give the logits of the whole" + with, [&] {
      KvCache cache(model.layout(), 1, true);
      std::vector<at::Tensor> parts;
      for (const auto& [from, to] : {std::pair{0U, 5U}, {5U, 6U}, {6U, 12U}}) {
        parts.push_back(forward(model, request(cache, from, to)));
      }
      return at::allclose(at::cat(parts, 0), all, 1e-5, 1e-5);
    });
    run("a ragged batch gives what each gives alone" + with, [&] {
      KvCache a(model.layout(), 1, true), b(model.layout(), 1, true);
      forward(model, request(b, 0, 9));
      std::vector<Request> batch{request(a, 0, 4), request(b, 9, 12)};
      const auto out = model.forward(batch, nullptr);
      return at::allclose(out[0], all.narrow(0, 0, 4), 1e-5, 1e-5) &&
             at::allclose(out[1], all.narrow(0, 9, 3), 1e-5, 1e-5) && a.length() == 4 && b.length() == 12;
    });
    run("given rows are read and left as they are" + with, [&] {
      const at::Tensor before = whole.rows(1, 0, 0, 12).clone();
      const at::Tensor again = forward(model, request(whole, 8, 12, true));
      return at::allclose(again, all.narrow(0, 8, 4), 1e-5, 1e-5) && whole.length() == 12 &&
             at::equal(before, whole.rows(1, 0, 0, 12));
    });
  }
  run("a cancelled forward leaves the cache as long as it was", [] {
    const Decoder model(spec(0), weights(), at::kFloat);
    KvCache cache(model.layout(), 4, true);
    std::vector<Request> batch{request(cache, 0, 3)};
    try {
      model.forward(batch, std::make_shared<std::atomic<bool>>(true));
    } catch (const Cancelled&) {
      return cache.length() == 0;
    }
    return false;
  });
  run("missing, extra and mis-shaped weights", [] {
    auto missing = weights(), extra = weights(), shape = weights();
    missing.erase("norm.weight");
    extra["layers.2.input_layernorm.weight"] = at::ones({16});
    shape["layers.0.mlp.up_proj.weight"] = at::zeros({16, 24});
    for (auto* w : {&missing, &extra, &shape}) {
      if (!throws("SHAPE_MISMATCH", [&] { Decoder(spec(0), *w, at::kFloat); })) return false;
    }
    return true;
  });
}

}  // namespace

int main() {
  memory();
  samplers();
  tables();
  decoders();
  return result();
}
