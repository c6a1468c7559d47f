#include "model/decoder.h"

#include <ATen/ops/cat.h>

#include <algorithm>

#include "model/blocks.h"

namespace c2c {

Decoder::Decoder(DecoderSpec spec, std::unordered_map<std::string, at::Tensor> weights, at::ScalarType dtype)
    : spec_(std::move(spec)), dtype_(dtype), weights_(take_weights(spec_, std::move(weights))) {}

CacheLayout Decoder::layout() const {
  return {static_cast<int64_t>(spec_.layers.size()), spec_.kv_heads, spec_.head_dim, spec_.context, dtype_};
}

std::vector<at::Tensor> Decoder::forward(std::vector<Request>& requests, const CancelFlag& cancel) const {
  // A request's share of the batch: `rows` rows from `first` on, behind `past` rows of its cache.
  struct Share {
    int64_t first, rows, past;
    std::vector<uint32_t> positions;  // of all rows that it sees, where a window may hide some
  };
  const bool windows =
      std::any_of(spec_.layers.begin(), spec_.layers.end(), [](const LayerSpec& l) { return l.window > 0; });
  std::vector<Share> shares;
  std::vector<uint32_t> tokens, positions;
  bool any_logits = false, all_given = true;
  for (auto& r : requests) {
    const auto rows = static_cast<int64_t>(r.tokens.size());
    if (r.given && r.cache->length() < rows)
      option_invalid("given", "the cache holds fewer rows than there are tokens");
    Share share{static_cast<int64_t>(tokens.size()), rows, r.cache->length() - (r.given ? rows : 0), {}};
    if (!r.given) r.cache->reserve(rows);
    if (windows) {
      const auto& old = r.cache->positions();
      share.positions.assign(old.begin(), old.begin() + share.past);
      share.positions.insert(share.positions.end(), r.positions.begin(), r.positions.end());
    }
    tokens.insert(tokens.end(), r.tokens.begin(), r.tokens.end());
    positions.insert(positions.end(), r.positions.begin(), r.positions.end());
    any_logits = any_logits || r.logits != Logits::kNone;
    all_given = all_given && r.given;
    shares.push_back(std::move(share));
  }
  if (tokens.empty()) return std::vector<at::Tensor>(requests.size());

  std::vector<Angles> turns;
  for (size_t rope = 0; rope < spec_.ropes.size(); ++rope) turns.push_back(angles(spec_, rope, positions, dtype_));
  at::Tensor x = embed(spec_, weights_, tokens);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    check(cancel);
    const auto layer = static_cast<int64_t>(i);
    // In a pure prefill nothing reads the last block's output.
    const BlockParts parts{!all_given, any_logits || i + 1 < weights_.layers.size()};
    const auto keep = [&](const at::Tensor& key, const at::Tensor& value) {
      for (size_t n = 0; n < requests.size(); ++n) {
        const auto& [first, rows, past, unused] = shares[n];
        if (requests[n].given || rows == 0) continue;
        requests[n].cache->rows(layer, 0, past, past + rows).copy_(key.narrow(0, first, rows));
        requests[n].cache->rows(layer, 1, past, past + rows).copy_(value.narrow(0, first, rows));
      }
    };
    const auto attend = [&](const at::Tensor& query) {
      std::vector<at::Tensor> attended;
      for (size_t n = 0; n < requests.size(); ++n) {
        const auto& [first, rows, past, seen] = shares[n];
        if (rows == 0) continue;
        const KvCache& cache = *requests[n].cache;
        attended.push_back(attention(spec_, i, query.narrow(0, first, rows), cache.rows(layer, 0, 0, past + rows),
                                     cache.rows(layer, 1, 0, past + rows), seen));
      }
      return attended.size() == 1 ? attended[0] : at::cat(attended, 0);
    };
    x = block(spec_, weights_.layers[i], x, turns[static_cast<size_t>(spec_.layers[i].rope)], parts, keep, attend);
  }

  std::vector<at::Tensor> results;
  for (size_t n = 0; n < requests.size(); ++n) {
    auto& r = requests[n];
    const auto& [first, rows, past, unused] = shares[n];
    if (!r.given) r.cache->commit(r.tokens.data(), r.positions.data(), rows);
    if (r.logits == Logits::kNone || rows == 0) {
      results.emplace_back();
    } else if (r.logits == Logits::kAll) {
      results.push_back(head(spec_, weights_, x.narrow(0, first, rows)));
    } else {
      results.push_back(head(spec_, weights_, x.narrow(0, first + rows - 1, 1)));
    }
  }
  return results;
}

}  // namespace c2c
