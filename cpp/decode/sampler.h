// Chooses the next token: penalties on counts of prompt and answer, then greedy or a sampled choice.
#pragma once
#include <cstdint>
#include <random>
#include <unordered_map>
#include <vector>

namespace c2c {

struct SamplerOptions {
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // 0: off
  double top_p = 1;        // 1: off; the token that crosses p is kept
  double min_p = 0;        // 0: off
  uint64_t seed = 0;
  double repetition = 1, presence = 0, frequency = 0;
  std::vector<uint32_t> history;
};

class Sampler {
 public:
  explicit Sampler(SamplerOptions options);
  // Chooses from one row of logits (left as it is) and counts the choice.
  uint32_t pick(const float* logits, int64_t vocab);

 private:
  const float* penalised(const float* logits, int64_t vocab);
  uint32_t draw(const float* row, int64_t vocab, int64_t top);
  size_t choose(const float* row, int64_t vocab, int64_t top);

  SamplerOptions options_;
  std::unordered_map<uint32_t, int64_t> counts_;
  std::mt19937_64 random_;
  std::vector<float> row_;
  std::vector<uint64_t> order_;  // ids that can be drawn; the upper half puts more likely ones first
  std::vector<double> weights_;  // of the ids in order_; the most likely one's is 1
};

}  // namespace c2c
