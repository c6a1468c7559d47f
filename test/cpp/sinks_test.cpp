// What StreamingLLM's cache promises, on a random decoder. Prints "N passed, N failed".
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>

#include "cache/edit.h"
#include "check.h"
#include "small_decoder.h"

using namespace c2c;

namespace {

uint32_t token(int64_t i) { return static_cast<uint32_t>((i * i + 5 * i + 3) % 32); }

std::shared_ptr<const Policy> sinks(int64_t first, int64_t evict, int64_t capacity) {
  return make_policy({"sinks", {{"sinks", first}, {"evict", evict}}}, capacity);
}

std::shared_ptr<KvCache> cache_of(const Decoder& model, int64_t capacity, int64_t first, int64_t evict) {
  auto cache = std::make_shared<KvCache>(model.layout(), capacity, false, model.ropes());
  cache->set_policy(sinks(first, evict, capacity));
  return cache;
}

at::Tensor read(const Decoder& model, KvCache& cache, int64_t from, int64_t to) {
  std::vector<Request> batch{{&cache, {}, {}, Logits::kAll, false}};
  for (int64_t i = from; i < to; ++i) batch[0].tokens.push_back(token(i));
  return model.forward(batch, nullptr)[0];
}

// Keys kept as they were before they were turned, and turned to their places in the cache when they are read: the way
// that the method is published.
class Unturned {
 public:
  Unturned(const Decoder& model, int64_t capacity, int64_t first) : model_(model), capacity_(capacity), first_(first) {}

  at::Tensor step(int64_t at) {
    if (static_cast<int64_t>(rows_.size()) == capacity_) rows_.erase(rows_.begin() + first_);
    KvCache cache(model_.layout(), capacity_, false, model_.ropes());
    const auto kept = static_cast<int64_t>(rows_.size());
    cache.reserve(kept);
    std::vector<uint32_t> tokens, positions;
    for (int64_t i = 0; i < kept; ++i) {
      const Row& row = rows_[static_cast<size_t>(i)];
      for (int64_t layer = 0; layer < 2; ++layer) {
        const at::Tensor key = row.keys[static_cast<size_t>(layer)].clone();
        turn_keys(key, model_.spec().ropes[0], i);
        cache.put(layer, 0, i, key);
        cache.put(layer, 1, i, row.values[static_cast<size_t>(layer)]);
      }
      tokens.push_back(row.token);
      positions.push_back(static_cast<uint32_t>(i));
    }
    cache.commit(tokens.data(), positions.data(), kept);
    const at::Tensor logits = read(model_, cache, at, at + 1);
    Row row{token(at), {}, {}};
    for (int64_t layer = 0; layer < 2; ++layer) {
      at::Tensor key = cache.rows(layer, 0, kept, kept + 1).clone();
      turn_keys(key, model_.spec().ropes[0], -kept);
      row.keys.push_back(key);
      row.values.push_back(cache.rows(layer, 1, kept, kept + 1).clone());
    }
    rows_.push_back(std::move(row));
    return logits;
  }

 private:
  struct Row {
    uint32_t token;
    std::vector<at::Tensor> keys, values;
  };
  const Decoder& model_;
  int64_t capacity_, first_;
  std::vector<Row> rows_;
};

void all() {
  const Decoder model(spec(0), weights(), at::kFloat);

  run("a cache as long as the text gives full attention", [&] {
    KvCache whole(model.layout(), 64, true, model.ropes());
    const auto cache = cache_of(model, 40, 4, 1);
    for (int64_t i = 0; i < 40; ++i)
      if (!at::allclose(read(model, *cache, i, i + 1), read(model, whole, i, i + 1), 1e-5, 1e-5)) return false;
    return true;
  });
  run("without sinks it is a plain sliding window", [&] {
    const auto cache = cache_of(model, 16, 0, 1);
    for (int64_t i = 0; i < 50; ++i) {
      read(model, *cache, i, i + 1);
      const int64_t first = std::max<int64_t>(0, i - 15);
      for (int64_t row = 0; row < cache->length(); ++row)
        if (cache->tokens()[static_cast<size_t>(row)] != token(first + row) ||
            cache->positions()[static_cast<size_t>(row)] != row)
          return false;
    }
    return cache->length() == 16;
  });
  run("keys turned in place and keys turned when read agree", [&] {
    const auto cache = cache_of(model, 16, 4, 1);
    Unturned other(model, 16, 4);
    for (int64_t i = 0; i < 100; ++i)
      if (!at::allclose(read(model, *cache, i, i + 1), other.step(i), 1e-4, 1e-4)) return false;
    return true;
  });
  run("keys left where they were do not", [&] {
    // The sinks' neighbours stay at their old distance: another function, which a test that cannot tell would pass.
    const auto turned = cache_of(model, 16, 4, 1);
    KvCache left(model.layout(), 64, true, model.ropes());
    at::Tensor a, b;
    for (int64_t i = 0; i < 24; ++i) {
      a = read(model, *turned, i, i + 1);
      if (left.length() == 16) keep(left, {{{{0, 4}, {5, 16}}}, false});
      b = read(model, left, i, i + 1);
    }
    return turned->tokens() == left.tokens() && !at::allclose(a, b, 1e-3, 1e-3);
  });
  run("memory is constant once it is full, and sinks stay as they were", [&] {
    const auto cache = cache_of(model, 32, 4, 2);
    read(model, *cache, 0, 16);
    const int64_t bytes = cache->bytes();
    const void* at = cache->rows(0, 0, 0, 1).data_ptr();
    const at::Tensor first = cache->rows(1, 0, 0, 4).clone();
    for (int64_t i = 16; i < 400; ++i) {
      read(model, *cache, i, i + 1);
      if (cache->length() > 32 || cache->bytes() != bytes || cache->segments().size() != 1) return false;
    }
    return cache->rows(0, 0, 0, 1).data_ptr() == at && at::equal(first, cache->rows(1, 0, 0, 4)) &&
           cache->tokens().back() == token(399);
  });
  run("evicting a, then b is evicting a + b", [&] {
    const auto one = cache_of(model, 32, 4, 1);
    read(model, *one, 0, 20);
    const auto two = one->fork();
    const auto gone = [](int64_t count, int64_t length) { return EvictionPlan{{{{0, 4}, {4 + count, length}}}}; };
    keep(*one, gone(3, 20));
    keep(*one, gone(5, 17));
    keep(*two, gone(8, 20));
    for (int64_t layer = 0; layer < 2; ++layer)
      for (int64_t part = 0; part < 2; ++part)
        if (!at::allclose(one->rows(layer, part, 0, 12), two->rows(layer, part, 0, 12), 1e-5, 1e-5)) return false;
    return one->tokens() == two->tokens() && one->positions() == two->positions();
  });
  run("its plan keeps the sinks, the recent rows and room for what comes", [&] {
    for (const int64_t incoming : {1, 3, 8, 28}) {
      const auto plan = sinks(4, 2, 32)->plan({2, 30, 32, incoming});
      int64_t kept = 0;
      for (const RowRange& r : plan.keep[0]) kept += r.end - r.start;
      if (plan.keep[0][0] != RowRange{0, 4} || plan.keep[0][1].end != 30 || kept + incoming > 32) return false;
    }
    return true;
  });
  run("a fork of a full cache evicts for itself", [&] {
    const auto cache = cache_of(model, 16, 4, 1);
    for (int64_t i = 0; i < 20; ++i) read(model, *cache, i, i + 1);
    const auto fork = cache->fork();
    const auto tokens = fork->tokens();
    const at::Tensor rows = fork->rows(1, 0, 0, 16).clone();
    read(model, *cache, 20, 21);
    const bool kept = fork->tokens() == tokens && at::equal(rows, fork->rows(1, 0, 0, 16));
    return kept && at::allclose(read(model, *fork, 21, 22), read(model, *cache, 21, 22), 1, 1e9);
  });
  run("more than it can take at once, and numbers that make no sense", [&] {
    const auto cache = cache_of(model, 16, 4, 1);
    return throws("CACHE_FULL", [&] { read(model, *cache, 0, 30); }) && cache->length() == 0 &&
           throws("OPTION_INVALID", [] { sinks(16, 1, 16); }) && throws("OPTION_INVALID", [] { sinks(-1, 1, 16); }) &&
           throws("OPTION_INVALID", [] { sinks(4, 13, 16); }) && throws("OPTION_INVALID", [] { sinks(4, 0, 16); }) &&
           throws("OPTION_INVALID",
                  [] {
                    make_policy({"sinks", {{"recent", 3}}}, 16);
                  }) &&
           throws("OPTION_INVALID", [] {
             make_policy({"no such", {}}, 16);
           });
  });
}

}  // namespace

int main() {
  all();
  return result();
}
