// A batch's rows as kernels see them.
#include <algorithm>

#include "cuda/runner.h"

namespace c2c::cuda {

HostRows host_rows(const std::vector<Request>& requests, const Batch& batch, bool windows) {
  HostRows all;
  for (size_t n = 0; n < requests.size(); ++n) {
    const Share& share = batch.shares[n];
    if (share.rows == 0) continue;
    const KvCache& cache = *requests[n].cache;
    const size_t first_run = all.runs.size(), first_position = all.positions.size();
    std::byte* place = nullptr;  // of the request's first new row
    int64_t layer_bytes = 0, part_bytes = 0, row_bytes = 0;
    int32_t runs = 0;
    for (const Slice& s : cache.slices(0, share.past + share.rows)) {
      const Block& block = *cache.segments()[s.segment].block;
      ++runs;
      if (block.stored() != nullptr) {
        all.runs.push_back({nullptr, 0, 0, s.end - s.start});
        continue;
      }
      const at::Tensor keys = block.rows(0, 0, s.start, s.end), values = block.rows(0, 1, s.start, s.end);
      const auto item = static_cast<int64_t>(keys.element_size());
      auto* first = static_cast<std::byte*>(keys.data_ptr());
      part_bytes = static_cast<std::byte*>(values.data_ptr()) - first;
      layer_bytes = 2 * part_bytes;
      row_bytes = keys.stride(0) * item;
      all.runs.push_back({first, layer_bytes, part_bytes, s.end - s.start});
      if (!requests[n].given && s.at <= share.past) place = first + (share.past - s.at) * row_bytes;
    }
    if (windows) all.positions.insert(all.positions.end(), share.positions.begin(), share.positions.end());
    for (int64_t r = 0; r < share.rows; ++r) {
      const auto at = static_cast<size_t>(share.first + r);
      all.rows.push_back({nullptr, runs, static_cast<int32_t>(share.past + r + 1), batch.tokens[at],
                          batch.positions[at], place == nullptr ? nullptr : place + r * row_bytes, layer_bytes,
                          part_bytes, nullptr});
      all.run_at.push_back(first_run);
      all.position_at.push_back(first_position);
    }
  }
  return all;
}

void set_addresses(HostRows& all, const CacheRun* runs, const uint32_t* positions) {
  for (size_t i = 0; i < all.rows.size(); ++i) {
    all.rows[i].runs = runs + all.run_at[i];
    all.rows[i].positions = all.positions.empty() ? nullptr : positions + all.position_at[i];
  }
}

int64_t splits_for(int64_t rows, int64_t kv_heads, int64_t seen) {
  // Pieces of 64 rows and more, up to about two blocks for each multiprocessor of a large device.
  int64_t splits = 1;
  while (splits < 32 && seen > 64 * splits && rows * kv_heads * splits < 256) splits *= 2;
  return splits;
}

HeadTurn heads_of(const Parts& p, size_t layer) {
  const auto floats = [](const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; };
  const DecoderSpec& s = *p.spec;
  const Norms& n = p.norms[layer];
  return {s.heads, s.kv_heads, s.head_dim, floats(n.query), floats(n.key), static_cast<float>(s.norm_eps), nullptr};
}

Gate gate_of(Activation activation) {
  return activation == Activation::kSilu   ? Gate::kSilu
         : activation == Activation::kGelu ? Gate::kGelu
                                           : Gate::kGeluTanh;
}

}  // namespace c2c::cuda
