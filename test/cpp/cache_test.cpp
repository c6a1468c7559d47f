// The KV cache: segments, forks, edits and eviction plans. Prints "N passed, N failed".
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>

#include <cstdlib>

#include "cache/edit.h"
#include "check.h"
#include "small_decoder.h"

using namespace c2c;

namespace {

const CacheLayout layout{2, 2, 4, 4096, at::kFloat};

std::shared_ptr<const Ropes> ropes() { return std::make_shared<Ropes>(Ropes{{{1.0, 0.1}}, {0, 0}}); }

std::shared_ptr<KvCache> empty(int64_t capacity, bool grow = true) {
  return std::make_shared<KvCache>(layout, capacity, grow, ropes());
}

// Rows that hold `value`, value + 1, … in every layer and part; their tokens say the same.
void fill(KvCache& cache, int64_t count, uint32_t value) {
  cache.reserve(count);
  const int64_t past = cache.length();
  std::vector<uint32_t> tokens, positions = cache.next_positions(count);
  for (int64_t i = 0; i < count; ++i) {
    const auto token = static_cast<uint32_t>(value + i);
    tokens.push_back(token);
    for (int64_t layer = 0; layer < layout.layers; ++layer)
      for (int64_t part = 0; part < 2; ++part)
        cache.put(layer, part, past + i, at::full({1, layout.kv_heads, layout.head_dim}, static_cast<double>(token)));
  }
  cache.commit(tokens.data(), positions.data(), count);
}

double value_at(const KvCache& cache, int64_t row, int64_t layer = 1) {
  return cache.rows(layer, 1, row, row + 1).flatten()[0].item().toDouble();
}

// Values of all rows are what its tokens say.
bool true_to_tokens(const KvCache& cache) {
  for (int64_t row = 0; row < cache.length(); ++row)
    for (int64_t layer = 0; layer < layout.layers; ++layer)
      if (value_at(cache, row, layer) != cache.tokens()[static_cast<size_t>(row)]) return false;
  return true;
}

void segments() {
  run("a cache grows by doubling and keeps its rows", [] {
    auto cache = empty(4);
    fill(*cache, 4, 1);
    fill(*cache, 1, 9);
    return cache->capacity() == 8 && cache->length() == 5 && true_to_tokens(*cache) && cache->segments().size() == 1;
  });
  run("a fixed cache is full", [] {
    auto cache = empty(4, false);
    fill(*cache, 4, 1);
    return throws("CACHE_FULL", [&] { cache->reserve(1); }) && cache->length() == 4 && cache->capacity() == 4;
  });
  run("a fork shares rows and goes its own way", [] {
    auto cache = empty(8);
    fill(*cache, 3, 1);
    const auto fork = cache->fork();
    const bool shared = fork->rows(0, 0, 0, 3).data_ptr() == cache->rows(0, 0, 0, 3).data_ptr();
    fill(*fork, 2, 20);
    fill(*cache, 2, 30);
    fork->own(1, 2);
    fork->put(1, 1, 1, at::full({1, 2, 4}, 99.0));
    return shared && value_at(*fork, 1) == 99 && value_at(*cache, 1) == 2 && value_at(*fork, 3) == 20 &&
           value_at(*cache, 3) == 30 && true_to_tokens(*cache);
  });
  run("the first to append goes on in place, the other in a block of its own", [] {
    auto cache = empty(64);
    fill(*cache, 10, 0);
    const auto fork = cache->fork();
    fill(*cache, 1, 50);
    fill(*fork, 1, 60);
    return cache->segments().size() == 1 && fork->segments().size() == 2 && true_to_tokens(*cache) &&
           true_to_tokens(*fork);
  });
  run("a hundred forks of 2,000 rows take under 5 % of a hundred copies", [] {
    auto cache = empty(2000);
    fill(*cache, 2000, 0);
    const int64_t one = cache->bytes();
    std::vector<std::shared_ptr<KvCache>> forks;
    int64_t all = 0;
    for (uint32_t i = 0; i < 100; ++i) {
      forks.push_back(cache->fork());
      fill(*forks.back(), 1, 5000 + i);
      all += forks.back()->bytes();
    }
    for (uint32_t i = 0; i < 100; ++i)
      if (value_at(*forks[i], 2000) != 5000 + i || value_at(*forks[i], 1999) != 1999) return false;
    return cache->bytes() == one && static_cast<double>(all) < 0.05 * 100 * static_cast<double>(one);
  });
  run("bytes of a shared block go on to a fork", [] {
    auto cache = empty(100);
    fill(*cache, 100, 0);
    const int64_t one = cache->bytes();
    const auto fork = cache->fork();
    const bool first = cache->bytes() == one && fork->bytes() == 0;
    cache.reset();
    return first && fork->bytes() == one;
  });
  run("a write copies 64 rows of a fork", [] {
    auto cache = empty(1000);
    fill(*cache, 1000, 0);
    const auto fork = cache->fork();
    fork->own(500, 501);
    fork->put(0, 0, 500, at::full({1, 2, 4}, -1.0));
    const int64_t row = layout.row_bytes();
    return cache->bytes() == 1000 * row && fork->bytes() == 64 * row && fork->segments().size() == 3 &&
           value_at(*fork, 999) == 999 && cache->rows(0, 0, 500, 501).flatten()[0].item().toDouble() == 500;
  });
  run("truncated rows are given back only where nobody else reads them", [] {
    auto cache = empty(8);
    fill(*cache, 6, 0);
    cache->truncate(2);
    fill(*cache, 2, 40);
    const auto fork = cache->fork();
    cache->truncate(3);
    fill(*cache, 1, 80);
    return true_to_tokens(*cache) && true_to_tokens(*fork) && value_at(*fork, 3) == 41 && value_at(*cache, 3) == 80 &&
           throws("OPTION_INVALID", [&] { cache->truncate(5); });
  });
  run("a slice shares, an append shares what is long and copies what is short", [] {
    auto cache = empty(300);
    fill(*cache, 300, 0);
    const auto part = cache->slice(100, 250);
    const bool shared = part->bytes() == 0 && part->length() == 150 && true_to_tokens(*part);
    auto other = empty(4);
    fill(*other, 2, 900);
    other->append(*part, 0, 150);
    other->append(*part, 3, 5);
    fill(*other, 1, 901);
    fill(*cache, 1, 77);
    return shared && other->length() == 155 && true_to_tokens(*other) && true_to_tokens(*cache) &&
           other->bytes() < 100 * layout.row_bytes();
  });
  run("a cache larger than memory", [] {
    return throws("OUT_OF_MEMORY", [] { KvCache cache(layout, int64_t{1} << 50, true); }) &&
           throws("OUT_OF_MEMORY", [] { KvCache cache(layout, INT64_MAX / 2, true); }) &&
           // Ten terabytes, which a system that overcommits would hand out.
           throws("OUT_OF_MEMORY", [] { KvCache cache(layout, 10'000'000'000'000 / layout.row_bytes(), true); });
  });
  run("a cache that cannot grow any more keeps what it has", [] {
    auto cache = empty(4);
    fill(*cache, 4, 1);
    return throws("OUT_OF_MEMORY", [&] { cache->reserve(int64_t{1} << 50); }) && cache->length() == 4 &&
           true_to_tokens(*cache) && (fill(*cache, 3, 5), true_to_tokens(*cache));
  });
}

// ── against a naive model ────────────────────────────────────────────────────────────────────────────────────────────

struct Naive {
  std::vector<uint32_t> tokens;
  std::vector<int64_t> positions;
};

void random_edits() {
  run("a thousand forks, edits and appends agree with plain lists", [] {
    std::srand(7);
    const auto below = [](int64_t n) { return n <= 0 ? int64_t{0} : std::rand() % n; };
    std::vector<std::pair<std::shared_ptr<KvCache>, Naive>> all{{empty(4), {}}};
    uint32_t next = 1;
    for (int step = 0; step < 1000; ++step) {
      auto& [cache, naive] = all[static_cast<size_t>(below(static_cast<int64_t>(all.size())))];
      const int64_t n = cache->length(), a = below(n + 1), b = a + below(n - a + 1);
      const auto at = naive.tokens.begin();
      switch (below(7)) {
        case 0:
        case 1: {
          const int64_t count = 1 + below(n > 600 ? 2 : 90);
          fill(*cache, count, next);
          for (int64_t i = 0; i < count; ++i) naive.tokens.push_back(next++);
          break;
        }
        case 2:
          if (all.size() < 8) {
            auto copy = std::pair{cache->fork(), naive};
            all.push_back(std::move(copy));
          } else {
            all.erase(all.begin() + below(8));
          }
          continue;
        case 3:
          cache->truncate(a);
          naive.tokens.resize(static_cast<size_t>(a));
          break;
        case 4:
          erase(*cache, a, b);
          naive.tokens.erase(at + a, at + b);
          break;
        case 5: {
          if (n > 600) continue;
          const auto part = cache->slice(a, b);
          const std::vector<uint32_t> tokens(at + a, at + b);
          append_behind(*cache, *part, 0, b - a);
          naive.tokens.insert(naive.tokens.end(), tokens.begin(), tokens.end());
          break;
        }
        default: {
          const auto before = cache->positions();
          shift(*cache, 3);
          for (size_t i = 0; i < before.size(); ++i)
            if (cache->positions()[i] != before[i] + 3) return false;
          shift(*cache, -3);
        }
      }
      if (cache->tokens() != naive.tokens || !true_to_tokens(*cache)) return false;
      if (cache->segments().size() > 64) return false;
    }
    for (const auto& [cache, naive] : all)
      if (cache->tokens() != naive.tokens || !true_to_tokens(*cache)) return false;
    return true;
  });
}

// ── keys that move ───────────────────────────────────────────────────────────────────────────────────────────────────

std::vector<uint32_t> some_tokens(uint32_t from, uint32_t to) {
  std::vector<uint32_t> tokens;
  for (uint32_t i = from; i < to; ++i) tokens.push_back((i * 5 + 3) % 32);
  return tokens;
}

at::Tensor read(const Decoder& model, KvCache& cache, const std::vector<uint32_t>& tokens,
                std::vector<uint32_t> positions = {}) {
  std::vector<Request> batch{{&cache, tokens, std::move(positions), Logits::kAll, false}};
  return model.forward(batch, nullptr)[0];
}

bool same_rows(const KvCache& a, const KvCache& b, double tolerance) {
  if (a.length() != b.length()) return false;
  for (int64_t layer = 0; layer < a.layout().layers; ++layer)
    for (int64_t part = 0; part < 2; ++part)
      if (!at::allclose(a.rows(layer, part, 0, a.length()), b.rows(layer, part, 0, b.length()), tolerance, tolerance))
        return false;
  return true;
}

void moves() {
  const Decoder model(spec(0), weights(), at::kFloat);
  const auto cache = [&] { return std::make_shared<KvCache>(model.layout(), 8, true, model.ropes()); };
  run("a shifted cache is that of a prefill at the shifted positions", [&] {
    auto a = cache(), b = cache();
    read(model, *a, some_tokens(0, 12));
    shift(*a, 9);
    std::vector<uint32_t> positions(12);
    for (uint32_t i = 0; i < 12; ++i) positions[i] = i + 9;
    read(model, *b, some_tokens(0, 12), positions);
    return same_rows(*a, *b, 1e-4) && a->positions() == b->positions() &&
           throws("OPTION_INVALID", [&] { shift(*a, -10); }) && throws("CACHE_FULL", [&] { shift(*a, 64); });
  });
  run("an erased run leaves first-layer keys and values where a prefill without it has them", [&] {
    auto a = cache(), b = cache();
    read(model, *a, some_tokens(0, 12));
    const auto fork = a->fork();
    erase(*a, 3, 7);
    auto tokens = some_tokens(0, 3);
    for (const uint32_t token : some_tokens(7, 12)) tokens.push_back(token);
    read(model, *b, tokens);
    // Nothing in the first layer depends on what came before.
    return a->tokens() == tokens && a->positions() == b->positions() &&
           at::allclose(a->rows(0, 0, 0, 8), b->rows(0, 0, 0, 8), 1e-4, 1e-4) &&
           at::allclose(a->rows(0, 1, 0, 8), b->rows(0, 1, 0, 8), 1e-4, 1e-4) && fork->length() == 12 &&
           !at::allclose(a->rows(1, 1, 3, 8), b->rows(1, 1, 3, 8), 1e-4, 1e-4);
  });
  run("what is erased from the front of nothing else is a prefill of the rest", [&] {
    // Rows that were read alone, appended behind others: turned there, they are what a prefill there gives.
    auto a = cache(), b = cache(), c = cache();
    read(model, *a, some_tokens(0, 5));
    read(model, *b, some_tokens(5, 11));
    const at::Tensor before = b->rows(1, 0, 0, 6).clone();
    append_behind(*a, *b, 0, 6);
    std::vector<uint32_t> positions(6);
    for (uint32_t i = 0; i < 6; ++i) positions[i] = i + 5;
    read(model, *c, some_tokens(5, 11), positions);
    erase(*a, 0, 5);
    shift(*a, 5);
    return same_rows(*a, *c, 1e-4) && at::equal(before, b->rows(1, 0, 0, 6));
  });
  run("turning forth and back is the identity", [] {
    const at::Tensor keys = at::randn({7, 2, 4});
    const at::Tensor before = keys.clone();
    turn_keys(keys, {1.0, 0.1}, 1234);
    const bool moved = !at::allclose(keys, before, 1e-2, 1e-2);
    turn_keys(keys, {1.0, 0.1}, -1234);
    return moved && at::allclose(keys, before, 1e-5, 1e-5);
  });
  run("attention over a fork's segments is attention over one", [&] {
    for (const int64_t window : {int64_t{0}, int64_t{5}}) {
      const Decoder m(spec(window), weights(), at::kFloat);
      KvCache whole(m.layout(), 64, true, m.ropes()), base(m.layout(), 4, true, m.ropes());
      const at::Tensor all = read(m, whole, some_tokens(0, 40));
      read(m, base, some_tokens(0, 10));
      const auto one = base.fork(), two = base.fork();
      read(m, base, some_tokens(3, 5));
      read(m, *one, some_tokens(10, 17));
      one->own(2, 3);
      const auto three = one->fork();
      read(m, *one, some_tokens(0, 2));
      const at::Tensor many = read(m, *three, some_tokens(17, 39)), last = read(m, *three, some_tokens(39, 40));
      if (three->segments().size() < 3 || !at::allclose(many, all.narrow(0, 17, 22), 1e-4, 1e-4) ||
          !at::allclose(last, all.narrow(0, 39, 1), 1e-4, 1e-4))
        return false;
    }
    return true;
  });
}

// ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────────

void plans() {
  run("layers may keep different rows", [] {
    auto cache = empty(16);
    fill(*cache, 10, 0);
    const auto fork = cache->fork();
    keep(*cache, {{{{0, 2}, {4, 6}, {8, 10}}, {{0, 1}, {3, 7}, {9, 10}}}});
    const std::vector<double> first{0, 1, 4, 5, 8, 9}, second{0, 3, 4, 5, 6, 9};
    for (int64_t row = 0; row < 6; ++row)
      if (value_at(*cache, row, 0) != first[static_cast<size_t>(row)] ||
          value_at(*cache, row, 1) != second[static_cast<size_t>(row)] ||
          cache->positions()[static_cast<size_t>(row)] != row)
        return false;
    // Keys are turned from where they were to their place.
    const at::Tensor key = at::full({1, 2, 4}, 6.0);
    turn_keys(key, {1.0, 0.1}, 4 - 6);
    return cache->length() == 6 && true_to_tokens(*fork) && at::allclose(cache->rows(1, 0, 4, 5), key, 1e-5, 1e-5);
  });
  run("plans that make no sense", [] {
    auto cache = empty(16);
    fill(*cache, 6, 0);
    const std::vector<EvictionPlan> bad{{{}},          {{{{0, 7}}}},           {{{{3, 5}, {0, 2}}}},
                                        {{{{-1, 2}}}}, {{{{0, 2}}, {{0, 3}}}}, {{{{0, 2}}, {{0, 2}}}, false}};
    for (const EvictionPlan& plan : bad)
      if (!throws("OPTION_INVALID", [&] { keep(*cache, plan); })) return false;
    return cache->length() == 6 && true_to_tokens(*cache);
  });
}

}  // namespace

int main() {
  segments();
  random_edits();
  moves();
  plans();
  return result();
}
