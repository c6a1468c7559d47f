#include "cuda/fuse_rows.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

#include <algorithm>

namespace c2c::cuda {

TowerRows tower_rows(const Places& places, const Places::Run& run, const std::vector<Member>& members, int64_t first,
                     int64_t count) {
  const at::Tensor& arena = run.arena;
  TowerRows rows{.stride = arena.stride(2), .bf16 = arena.scalar_type() == at::kBFloat16};
  auto* base = static_cast<std::byte*>(arena.data_ptr());
  const auto item = static_cast<int64_t>(arena.element_size());
  for (int64_t i = 0; i < count; ++i) {
    const auto member = static_cast<size_t>(first + i);
    const int64_t offset =
        places.layers[member] * arena.stride(0) + members[member].part * arena.stride(1) + run.start * arena.stride(2);
    rows.at[i] = base + offset * item;
  }
  return rows;
}

std::optional<Places> places_in(const KvCache& cache, const std::vector<FuseSpan>& spans, bool receiver,
                                std::vector<int64_t> layers, at::Device device) {
  Places places{.layers = std::move(layers)};
  int64_t at = 0;
  for (const FuseSpan& span : spans) {
    const int64_t start = receiver ? span.receiver_start : span.sharer_start;
    const int64_t end = receiver ? span.receiver_end : span.sharer_end;
    for (const Slice& s : cache.slices(start, end)) {
      const at::Tensor& arena = cache.segments()[s.segment].block->arena();
      if (!arena.defined() || arena.device() != device) return std::nullopt;
      const auto type = arena.scalar_type();
      if ((type != at::kFloat && type != at::kBFloat16) || arena.stride(4) != 1 || arena.stride(3) != arena.size(4))
        return std::nullopt;
      places.runs.push_back({arena, s.start, s.end - s.start, at + s.at - start});
    }
    at += end - start;
  }
  return places;
}

Places sharer_places(const KvCache& sharer, const std::vector<FuseSpan>& spans, std::vector<int64_t> layers,
                     at::Device device, at::ScalarType dtype) {
  if (auto there = places_in(sharer, spans, false, layers, device)) return std::move(*there);
  std::vector<int64_t> used = layers;
  std::sort(used.begin(), used.end());
  used.erase(std::unique(used.begin(), used.end()), used.end());
  std::vector<at::Tensor> parts;
  for (const int64_t layer : used)
    for (int64_t part = 0; part < 2; ++part) {
      std::vector<at::Tensor> rows;
      for (const FuseSpan& span : spans) rows.push_back(sharer.rows(layer, part, span.sharer_start, span.sharer_end));
      parts.push_back(rows.size() == 1 ? rows.front() : at::cat(rows, 0));
    }
  const at::Tensor all = at::stack(parts, 0).to(device, dtype).unflatten(0, {static_cast<int64_t>(used.size()), 2});
  Places places{.layers = std::move(layers)};
  for (int64_t& layer : places.layers) layer = std::lower_bound(used.begin(), used.end(), layer) - used.begin();
  places.runs.push_back({all, 0, all.size(2), 0});
  return places;
}

Places draft_places(const at::Tensor& arena, int64_t start, const std::vector<FuseSpan>& spans,
                    std::vector<int64_t> layers) {
  Places places{.layers = std::move(layers)};
  int64_t at = 0;
  for (const FuseSpan& span : spans) {
    const int64_t count = span.receiver_end - span.receiver_start;
    if (count > 0) places.runs.push_back({arena, span.receiver_start - start, count, at});
    at += count;
  }
  return places;
}

}  // namespace c2c::cuda
