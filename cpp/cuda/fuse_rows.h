// Where the rows of a fusion lie on the device.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "fuser/fuser.h"
#include "kernels/cuda/tower.h"

namespace c2c::cuda {

// A tower of a batch: of which layer of its fuser, and whether of its keys (0) or values (1).
struct Member {
  size_t layer;
  int64_t part;
};

// A fusion's rows, one span after another, as runs in arenas [layers, 2, capacity, kvHeads, headDim].
struct Places {
  struct Run {
    at::Tensor arena;
    int64_t start, count;  // in the arena
    int64_t at;            // among the fusion's rows
  };
  std::vector<Run> runs = {};
  std::vector<int64_t> layers = {};  // the arenas' layer for each member of the batch
};

// The part of `members` [first, first + count) in a run.
TowerRows tower_rows(const Places& places, const Places::Run& run, const std::vector<Member>& members, int64_t first,
                     int64_t count);

// Rows of a cache at the receiver's (or the sharer's) side of the spans; nothing where some lie on another device, in
// another form than an arena or in another dtype than float and bfloat16. `layers`: as in Places.
std::optional<Places> places_in(const KvCache& cache, const std::vector<FuseSpan>& spans, bool receiver,
                                std::vector<int64_t> layers, at::Device device);
// The sharer's rows, where they lie or copied to the device in `dtype`. `layers`: of the sharer.
Places sharer_places(const KvCache& sharer, const std::vector<FuseSpan>& spans, std::vector<int64_t> layers,
                     at::Device device, at::ScalarType dtype);
// The receiver's rows in an arena of its rows from `start` on.
Places draft_places(const at::Tensor& arena, int64_t start, const std::vector<FuseSpan>& spans,
                    std::vector<int64_t> layers);

}  // namespace c2c::cuda
