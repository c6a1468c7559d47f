#include "model/runner.h"

#include <algorithm>

namespace c2c {

std::vector<int64_t> wanted_rows(const std::vector<Request>& requests, const Batch& batch) {
  std::vector<int64_t> wanted;
  for (size_t n = 0; n < requests.size(); ++n) {
    const Share& share = batch.shares[n];
    if (share.rows == 0 || requests[n].logits == Logits::kNone) continue;
    for (int64_t r = requests[n].logits == Logits::kAll ? 0 : share.rows - 1; r < share.rows; ++r)
      wanted.push_back(share.first + r);
  }
  return wanted;
}

std::vector<at::Tensor> split_logits(const at::Tensor& logits, const std::vector<Request>& requests,
                                     const Batch& batch) {
  std::vector<at::Tensor> results;
  int64_t at = 0;
  for (size_t n = 0; n < requests.size(); ++n) {
    const int64_t rows = batch.shares[n].rows;
    const int64_t wanted = requests[n].logits == Logits::kNone  ? 0
                           : requests[n].logits == Logits::kAll ? rows
                                                                : std::min<int64_t>(rows, 1);
    results.push_back(wanted > 0 ? logits.narrow(0, at, wanted) : at::Tensor());
    at += wanted;
  }
  return results;
}

std::vector<int64_t> weight_versions(const DecoderWeights& w) {
  std::vector<int64_t> all;
  const auto add = [&](const at::Tensor& t) {
    if (t.defined()) all.push_back(t.is_inference() ? 0 : t._version());
  };
  for (const at::Tensor* t : {&w.embedding, &w.final_norm, &w.head}) add(*t);
  for (const Layer& l : w.layers) {
    for (const at::Tensor* t :
         {&l.input_norm, &l.attention_norm, &l.feed_norm, &l.feed_post_norm, &l.query_norm, &l.key_norm})
      add(*t);
    for (const Linear* m : {&l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down}) {
      add(m->weight);
      add(m->bias);
    }
  }
  return all;
}

}  // namespace c2c
