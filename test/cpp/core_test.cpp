// Cache, sampler, tensor table and decoder without JavaScript. Prints "N passed, N failed".
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <functional>

#include "decode/sampler.h"
#include "model/decoder.h"
#include "weights/tensor_table.h"

using namespace c2c;

namespace {

int passed = 0, failed = 0;

void run(const std::string& name, const std::function<bool()>& body) {
  bool ok = false;
  std::string note;
  try {
    ok = body();
  } catch (const std::exception& error) {
    note = error.what();
  }
  (ok ? passed : failed)++;
  if (!ok) std::printf("FAILED %s %s\n", name.c_str(), note.c_str());
}

bool throws(const std::string& code, const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code == code;
  }
  return false;
}

// ── cache ────────────────────────────────────────────────────────────────────────────────────────────────────────────

const CacheLayout layout{2, 2, 4, 64, at::kFloat};

void fill(KvCache& cache, int64_t count, double value) {
  const std::vector<uint32_t> ids(static_cast<size_t>(count), 7);
  cache.reserve(count);
  const int64_t past = cache.length();
  for (int64_t layer = 0; layer < layout.layers; ++layer) {
    for (int64_t part = 0; part < 2; ++part) cache.rows(layer, part, past, past + count).fill_(value);
  }
  cache.commit(ids.data(), ids.data(), count);
}

double first(const KvCache& cache, int64_t row) {
  return cache.rows(1, 1, row, row + 1).flatten()[0].item().toDouble();
}

void caches() {
  run("a cache grows by doubling and keeps its rows", [] {
    KvCache cache(layout, 4, true);
    fill(cache, 4, 1);
    fill(cache, 1, 2);
    return cache.capacity() == 8 && cache.length() == 5 && first(cache, 0) == 1 && first(cache, 4) == 2;
  });
  run("a fixed cache is full", [] {
    KvCache cache(layout, 4, false);
    fill(cache, 4, 1);
    return throws("CACHE_FULL", [&] { cache.reserve(1); }) && cache.length() == 4;
  });
  run("a fork shares until one side writes", [] {
    KvCache cache(layout, 8, true);
    fill(cache, 3, 1);
    const auto fork = cache.fork();
    const bool shared = fork->rows(0, 0, 0, 1).data_ptr() == cache.rows(0, 0, 0, 1).data_ptr();
    fill(*fork, 1, 2);
    fill(cache, 1, 3);
    return shared && first(*fork, 3) == 2 && first(cache, 3) == 3 && first(*fork, 0) == 1;
  });
  run("truncate", [] {
    KvCache cache(layout, 8, true);
    fill(cache, 3, 1);
    cache.truncate(1);
    return cache.length() == 1 && throws("OPTION_INVALID", [&] { cache.truncate(2); });
  });
  run("a cache larger than memory", [] {
    return throws("OUT_OF_MEMORY", [] { KvCache cache(layout, int64_t{1} << 50, true); }) &&
           throws("OUT_OF_MEMORY", [] { KvCache cache(layout, INT64_MAX / 2, true); });
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

DecoderSpec spec(int64_t window) {
  DecoderSpec s;
  s.hidden = 16;
  s.heads = 4;
  s.kv_heads = 2;
  s.head_dim = 4;
  s.intermediate = 24;
  s.vocab = 32;
  s.context = 64;
  s.query_scale = 0.5;
  s.tied = true;
  s.ropes = {{1.0, 0.1}};
  s.layers = {{0, 0}, {0, window}};
  return s;
}

std::unordered_map<std::string, at::Tensor> weights() {
  std::unordered_map<std::string, at::Tensor> w{{"embed_tokens.weight", at::randn({32, 16})},
                                                {"norm.weight", at::ones({16})}};
  for (const std::string layer : {"layers.0.", "layers.1."}) {
    w[layer + "input_layernorm.weight"] = w[layer + "post_attention_layernorm.weight"] = at::ones({16});
    w[layer + "self_attn.q_proj.weight"] = at::randn({16, 16}) * 0.2;
    w[layer + "self_attn.k_proj.weight"] = at::randn({8, 16}) * 0.2;
    w[layer + "self_attn.v_proj.weight"] = at::randn({8, 16}) * 0.2;
    w[layer + "self_attn.o_proj.weight"] = at::randn({16, 16}) * 0.2;
    w[layer + "mlp.gate_proj.weight"] = at::randn({24, 16}) * 0.2;
    w[layer + "mlp.up_proj.weight"] = at::randn({24, 16}) * 0.2;
    w[layer + "mlp.down_proj.weight"] = at::randn({16, 24}) * 0.2;
  }
  return w;
}

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
  caches();
  samplers();
  tables();
  decoders();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
