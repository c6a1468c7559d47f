#include "decode/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace c2c {

Sampler::Sampler(SamplerOptions options) : options_(std::move(options)), random_(options_.seed) {
  for (const uint32_t id : options_.history) ++counts_[id];
}

uint32_t Sampler::pick(const float* logits, int64_t vocab) {
  const float* row = logits;
  if (options_.presence != 0 || options_.frequency != 0 || options_.repetition != 1) {
    row_.assign(logits, logits + vocab);
    row = row_.data();
    for (const auto& [id, count] : counts_) {
      if (static_cast<int64_t>(id) >= vocab) continue;
      float& value = row_[id];
      value -= static_cast<float>(options_.presence);
      value -= static_cast<float>(options_.frequency * static_cast<double>(count));
      value =
          value > 0 ? static_cast<float>(value / options_.repetition) : static_cast<float>(value * options_.repetition);
    }
  }
  uint32_t chosen = static_cast<uint32_t>(std::max_element(row, row + vocab) - row);
  if (options_.temperature > 0) {
    std::vector<uint32_t> order(static_cast<size_t>(vocab));
    std::iota(order.begin(), order.end(), 0U);
    // Equal logits keep id order, so that a seed gives the same text everywhere.
    const auto greater = [&](uint32_t a, uint32_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; };
    size_t keep = order.size();
    if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < keep) {
      keep = static_cast<size_t>(options_.top_k);
      std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(keep), order.end(), greater);
    } else if (options_.top_p < 1 || options_.min_p > 0) {
      std::sort(order.begin(), order.end(), greater);
    }
    const double top = row[chosen];
    std::vector<double> weights(keep);
    double total = 0;
    for (size_t i = 0; i < keep; ++i) {
      total += weights[i] = std::exp((row[order[i]] - top) / options_.temperature);
    }
    if (options_.top_p < 1) {
      double sum = 0;
      size_t n = 0;
      while (n < keep && sum < options_.top_p * total) sum += weights[n++];
      keep = std::max<size_t>(n, 1);
    }
    if (options_.min_p > 0) {
      while (keep > 1 && weights[keep - 1] < options_.min_p * weights[0]) --keep;
    }
    total = std::accumulate(weights.begin(), weights.begin() + static_cast<int64_t>(keep), 0.0);
    double draw = static_cast<double>(random_() >> 11) * 0x1.0p-53 * total;
    size_t i = 0;
    while (i + 1 < keep && draw >= weights[i]) draw -= weights[i++];
    chosen = order[i];
  }
  ++counts_[chosen];
  return chosen;
}

}  // namespace c2c
