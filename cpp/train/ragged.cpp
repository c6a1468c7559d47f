#include "train/ragged.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

namespace c2c {

namespace {

// A group is closed when padding would make it do this many times the work of its sequences.
constexpr double kWaste = 1.5;

at::Tensor numbers(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

bool counting(const std::vector<int64_t>& values, int64_t total) {
  if (static_cast<int64_t>(values.size()) != total) return false;
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i] != static_cast<int64_t>(i)) return false;
  return true;
}

int64_t size(const std::vector<int64_t>& values) { return static_cast<int64_t>(values.size()); }

}  // namespace

RaggedAttention::RaggedAttention(std::vector<SequenceRows> sequences, int64_t query_rows) {
  std::erase_if(sequences, [](const SequenceRows& s) { return s.queries.empty(); });
  std::stable_sort(sequences.begin(), sequences.end(), [](const SequenceRows& a, const SequenceRows& b) {
    return size(a.queries) * size(a.keys) < size(b.queries) * size(b.keys);
  });
  double work = 0;
  for (auto& sequence : sequences) {
    const int64_t queries = size(sequence.queries), keys = size(sequence.keys);
    const double own = static_cast<double>(queries * keys);
    if (!groups_.empty()) {
      const Group& last = groups_.back();
      const int64_t longest_queries = std::max(last.query_rows, queries), longest_keys = std::max(last.key_rows, keys);
      const double padded = static_cast<double>((size_t{1} + last.sequences.size()) *
                                                static_cast<size_t>(longest_queries * longest_keys));
      if (padded > kWaste * (work + own)) groups_.emplace_back(), work = 0;
    } else {
      groups_.emplace_back();
    }
    Group& group = groups_.back();
    work += own;
    group.query_rows = std::max(group.query_rows, queries);
    group.key_rows = std::max(group.key_rows, keys);
    group.sequences.push_back(std::move(sequence));
  }

  std::vector<int64_t> order(static_cast<size_t>(query_rows));
  int64_t begin = 0, key_rows = 0;
  for (const auto& group : groups_)
    for (const auto& sequence : group.sequences) key_rows += size(sequence.keys);
  for (auto& group : groups_) {
    std::vector<int64_t> queries, keys;
    group.causal = true;
    for (const auto& sequence : group.sequences) {
      for (const int64_t row : sequence.queries) {
        order[static_cast<size_t>(row)] = begin + size(queries);
        queries.push_back(row);
      }
      // Padded rows repeat the last one: no real row sees them, and nothing reads their results.
      queries.resize(queries.size() + static_cast<size_t>(group.query_rows) - sequence.queries.size(), queries.back());
      keys.insert(keys.end(), sequence.keys.begin(), sequence.keys.end());
      keys.resize(keys.size() + static_cast<size_t>(group.key_rows) - sequence.keys.size(), keys.back());
      group.causal = group.causal && sequence.queries.size() == sequence.keys.size();
    }
    begin += size(queries);
    group.queries = counting(queries, query_rows) ? at::Tensor() : numbers(queries);
    group.keys = counting(keys, key_rows) ? at::Tensor() : numbers(keys);
  }
  if (!counting(order, begin)) order_ = numbers(order);
}

at::Tensor RaggedAttention::mask(const Group& group, int64_t window) const {
  const auto known = group.masks.find(window);
  if (known != group.masks.end()) return known->second;
  at::Tensor seen =
      at::zeros({static_cast<int64_t>(group.sequences.size()), 1, group.query_rows, group.key_rows}, at::kBool);
  bool* cell = seen.mutable_data_ptr<bool>();
  for (const auto& sequence : group.sequences) {
    const int64_t queries = size(sequence.queries), past = size(sequence.keys) - queries;
    for (int64_t q = 0; q < group.query_rows; ++q) {
      const int64_t own = past + std::min(q, queries - 1);
      for (int64_t k = 0; k < group.key_rows; ++k, ++cell) {
        *cell = k <= own &&
                (window == 0 ||
                 sequence.positions[static_cast<size_t>(own)] - sequence.positions[static_cast<size_t>(k)] < window);
      }
    }
  }
  return group.masks.emplace(window, seen).first->second;
}

at::Tensor RaggedAttention::operator()(const DecoderSpec& spec, size_t layer, const at::Tensor& query,
                                       const at::Tensor& key, const at::Tensor& value) const {
  std::vector<at::Tensor> results;
  for (const auto& group : groups_) {
    const auto sequences = static_cast<int64_t>(group.sequences.size());
    const auto grid = [&](const at::Tensor& x, const at::Tensor& rows, int64_t length) {
      const at::Tensor chosen = rows.defined() ? at::index_select(x, 0, rows) : x;
      return chosen.view({sequences, length, x.size(1), x.size(2)}).transpose(1, 2);
    };
    int64_t window = spec.layers[layer].window;
    if (window > 0) {
      const bool cut = std::any_of(group.sequences.begin(), group.sequences.end(), [&](const SequenceRows& s) {
        const auto [low, high] = std::minmax_element(s.positions.begin(), s.positions.end());
        return *high - *low >= window;
      });
      if (!cut) window = 0;
    }
    std::optional<at::Tensor> seen;
    const bool causal = group.causal && window == 0;
    if (!causal) seen = mask(group, window);
    const at::Tensor out = at::scaled_dot_product_attention(
        grid(query, group.queries, group.query_rows), grid(key, group.keys, group.key_rows),
        grid(value, group.keys, group.key_rows), seen, 0.0, causal, spec.query_scale, spec.heads != spec.kv_heads);
    results.push_back(out.transpose(1, 2).reshape({sequences * group.query_rows, spec.heads * spec.head_dim}));
  }
  const at::Tensor all = results.size() == 1 ? results[0] : at::cat(results, 0);
  return order_.defined() ? at::index_select(all, 0, order_) : all;
}

}  // namespace c2c
