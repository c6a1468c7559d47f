#include "decode/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/kernels.h"

namespace c2c {

namespace {

// Below it are hidden tokens alone; what is not a number is not above it either.
constexpr double kLowest = std::numeric_limits<float>::lowest();

// Orders ids by falling logit, equal ones by id, so that a seed gives the same text everywhere. The id is the lower
// half.
uint64_t place(float logit, uint32_t id) {
  const auto bits = std::bit_cast<uint32_t>(logit + 0.0F);  // -0 is 0
  const uint32_t rising = bits & 0x80000000U ? ~bits : bits | 0x80000000U;
  return uint64_t{~rising} << 32 | id;
}

}  // namespace

Sampler::Sampler(SamplerOptions options) : options_(std::move(options)), random_(options_.seed) {
  for (const uint32_t id : options_.history) ++counts_[id];
}

uint32_t Sampler::pick(const float* logits, int64_t vocab) {
  const float* row = penalised(logits, vocab);
  int64_t top = 0;
  kernels().top(row, vocab, &top);
  const uint32_t chosen = options_.temperature > 0 ? draw(row, vocab, top) : static_cast<uint32_t>(top);
  ++counts_[chosen];
  return chosen;
}

const float* Sampler::penalised(const float* logits, int64_t vocab) {
  if (options_.presence == 0 && options_.frequency == 0 && options_.repetition == 1) return logits;
  row_.assign(logits, logits + vocab);
  for (const auto& [id, count] : counts_) {
    if (static_cast<int64_t>(id) >= vocab) continue;
    float& value = row_[id];
    value -= static_cast<float>(options_.presence);
    value -= static_cast<float>(options_.frequency * static_cast<double>(count));
    value =
        value > 0 ? static_cast<float>(value / options_.repetition) : static_cast<float>(value * options_.repetition);
  }
  return row_.data();
}

uint32_t Sampler::draw(const float* row, int64_t vocab, int64_t top) {
  const size_t keep = choose(row, vocab, top);
  const double total = std::accumulate(weights_.begin(), weights_.begin() + static_cast<int64_t>(keep), 0.0);
  double left = static_cast<double>(random_() >> 11) * 0x1.0p-53 * total;
  size_t i = 0;
  while (i + 1 < keep && left >= weights_[i]) left -= weights_[i++];
  return static_cast<uint32_t>(order_[i]);
}

// Fills order_ and weights_; how many of them can be drawn. Sorting a whole vocabulary takes longer than a small
// model's step, so what top-p or min-p will cut is left out before: min-p says so itself, and ids that are each below
// (1 - p) / vocab of all lie, even taken together, behind the token that crosses p.
size_t Sampler::choose(const float* row, int64_t vocab, int64_t top) {
  const double most = row[top];
  const auto weight = [&](float logit) { return std::exp((logit - most) / options_.temperature); };
  const bool limited = options_.top_k > 0 && options_.top_k < vocab, cut = options_.top_p < 1 || options_.min_p > 0;
  double total = 0, least = limited ? 0 : options_.min_p;
  if (!limited && options_.top_p < 1) {
    for (int64_t i = 0; i < vocab; ++i)
      if (row[i] >= kLowest) total += weight(row[i]);
    least = std::max(least, (1 - options_.top_p) * total / static_cast<double>(vocab));
  }
  // A hair less, for the exact rules below to decide.
  const double lowest = least > 0 ? most + options_.temperature * std::log(least * 0.999) : kLowest;
  order_.clear();
  for (int64_t i = 0; i < vocab; ++i)
    if (row[i] >= lowest) order_.push_back(place(row[i], static_cast<uint32_t>(i)));
  if (order_.empty()) order_.push_back(place(row[top], static_cast<uint32_t>(top)));
  if (limited) {
    const auto keep = std::min(order_.size(), static_cast<size_t>(options_.top_k));
    std::partial_sort(order_.begin(), order_.begin() + static_cast<int64_t>(keep), order_.end());
    order_.resize(keep);
  } else if (cut) {
    std::sort(order_.begin(), order_.end());
  }
  weights_.clear();
  for (const uint64_t id : order_) weights_.push_back(weight(row[static_cast<uint32_t>(id)]));
  if (limited) total = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  size_t keep = order_.size();
  if (options_.top_p < 1) {
    double sum = 0;
    size_t n = 0;
    while (n < keep && sum < options_.top_p * total) sum += weights_[n++];
    keep = std::max<size_t>(n, 1);
  }
  if (options_.min_p > 0)
    while (keep > 1 && weights_[keep - 1] < options_.min_p * weights_[0]) --keep;
  return keep;
}

}  // namespace c2c
