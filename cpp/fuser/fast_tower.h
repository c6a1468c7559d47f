// The gated tower's fast path: packed weights, rows read and written in place, or (rows in 8 or 4
// bits) fetched piece by piece in front of the first product. What gated_tower.cpp does plainly.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "fuser/fuser.h"
#include "fuser/tower_tensors.h"
#include "kernels/packed.h"
#include "kernels/team.h"
#include "kernels/workspace.h"

namespace c2c {

class FastTower {
 public:
  // One tower's rows: sharer [rows, sharer width] and receiver [rows, receiver width] in the fuser's dtype, base (the
  // receiver's rows in their own dtype), and what is made of them.
  struct Rows {
    int64_t count = 0;
    at::Tensor sharer, receiver, base;
    const RowSource* pieces = nullptr;  // the sharer's rows where they are no tensor
    int64_t part = 0;                   // of the pieces
    at::Tensor made;                    // like base
    at::Tensor weight;                  // [rows, heads] float
  };

  // Float32 or bfloat16, and even widths: products read bf16 values in pairs.
  static bool supports(HeadShape sharer, HeadShape receiver, at::ScalarType dtype);

  FastTower(const TowerTensors& tensors, HeadShape sharer, HeadShape receiver, at::ScalarType dtype);
  // Reserves memory for a run; slots from `slot` on.
  void prepare(Workspace& workspace, size_t slot, const Rows& rows, int64_t members);
  // One member's part of the run.
  void run(const Member& m, Rows& rows);
  // Whether the tensors are those that were packed, unchanged since.
  bool fits(const TowerTensors& tensors) const { return versions(tensors) == versions_; }
  static constexpr size_t kSlots = 5;
  // Rows of pieces that are fetched at once: the first product's weights are read once for as many.
  static constexpr int64_t kPiece = 192;

 private:
  struct Block {
    std::vector<float> norm;
    Packed up, down;  // down: not of scalar_
  };

  static std::vector<int64_t> versions(const TowerTensors& tensors);
  void add(const TowerTensors::Block& tensors, Block& block);
  void expand(const Member& m, const Block& block, int64_t rows);
  void apply(const Member& m, const Block& block, int64_t rows);
  void weigh(const Member& m, float* weight, int64_t rows);
  void multiply(const Member& m, const Packed& w, const void* x, int64_t stride, int64_t rows, After after, void* out,
                int64_t out_stride);
  // The first product, of rows [first, first + rows); x: the sharer's.
  void enter(const Member& m, const Rows& r, const void* x, int64_t stride, int64_t first, int64_t rows);
  const std::byte* plain(const Member& m, int64_t rows);

  HeadShape sharer_, receiver_;
  bool bf16_;
  int64_t hidden_, padded_, inner_;
  Packed in_, out_;
  // Nothing that is no line lies between the weight's block and the weight: weight · (h + down · a) is one product of
  // h and a, [weight, weight · down] · (h, a), with as many outputs as heads instead of as many as hidden.
  Packed weight_;
  std::vector<Block> shared_, blocks_;
  Block scalar_;
  PackedWeights packed_;
  std::vector<int64_t> versions_;
  float *h_ = nullptr, *rows_ = nullptr;
  std::byte *normed_ = nullptr, *inner_rows_ = nullptr, *piece_ = nullptr;
};

}  // namespace c2c
