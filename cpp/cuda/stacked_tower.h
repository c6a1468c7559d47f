// The open gated towers of a fuser as one batch: what fuser/gated_tower.cpp does for one. A weight is kept once for all
// of them, [towers, out, in], so that each product is one batched product.
//
// What is linear is folded when the batch is made, in float32 and rounded once:
// - the input map's bias is a column of it, against a one behind each row;
// - a norm's weight is part of the `up` behind it, its scale is applied to the product (kernels/cuda/tower.h);
// - the weight's last step, weight · (h + down · g), is (weight, weight · down) · (h, g), and the projection's,
//   out · (h + down · g), is (out, out · down) · (h, g): neither h is written once more.
// A row of the workspace is (h, u, s): hidden, a block's inner values, and the weight's.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "cuda/fuse_rows.h"
#include "fuser/tower_tensors.h"

namespace c2c::cuda {

class StackedTowers final : public Prepared {
 public:
  // Null where a projector that is open has no gated towers, or towers differ in shape. The projectors' weights become
  // views of the batch's.
  static std::shared_ptr<StackedTowers> make(const Fuser& fuser);

  // Whether no weight was changed since.
  bool fits() const;
  // By the fuser's layers, keys before values. May be none.
  const std::vector<Member>& members() const { return members_; }
  // A layer of each member's, from the fuser.
  std::vector<int64_t> layers(const Fuser& fuser, bool receiver) const;
  // Of the weights that a fusion reads.
  int64_t bytes() const;
  // A product of each batch: [rows, in] by [out, in].
  struct Shape {
    int64_t in, out;
  };
  std::vector<Shape> products() const;

  // Adds what the towers make of `rows` rows of sharer and receiver to the rows at `to`. Returns the weights, float
  // [members, rows, heads]; undefined where the towers have none. All memory is taken before the first row is written.
  // `at_once`: towers whose intermediate rows share the device's cache; 0: as many as fit.
  at::Tensor project(const Places& sharer, const Places& receiver, const Places& to, int64_t rows,
                     int64_t at_once = 0) const;

 private:
  explicit StackedTowers(const Fuser& fuser) : sharer_(fuser.sharer), receiver_(fuser.receiver), dtype_(fuser.dtype) {}
  void allocate(const TowerTensors& like, at::Device device);
  // Copies a tower's weights to its place, and makes the tower's tensors views of it.
  void take(int64_t index, TowerTensors& tower);
  void watch(const at::Tensor& weight);
  void batch(const Places& sharer, const Places& receiver, const Places& to, int64_t first, at::Tensor x,
             const at::Tensor& h, const at::Tensor& weights) const;
  int64_t fitting(int64_t rows) const;
  int64_t row() const { return hidden_ + inner_ + scalar_; }

  HeadShape sharer_, receiver_;
  at::ScalarType dtype_;
  int64_t hidden_ = 0, inner_ = 0;
  int64_t scalar_ = 0;   // the weight's inner width; 0: no weight
  int64_t columns_ = 0;  // of the input map: sharer, receiver, bias, padding to 16 bytes
  size_t shared_ = 0;    // blocks before the weight branches off
  std::vector<Member> members_;
  at::Tensor in_;                    // [n, hidden, columns]
  std::vector<at::Tensor> up_;       // [n, inner, hidden]; of the block after the shared ones, the weight's rows behind
  std::vector<at::Tensor> down_;     // [n, hidden, inner]; the last block's is in out_
  at::Tensor out_, out_bias_;        // [n, receiver width, hidden + inner], [n, receiver width] float
  at::Tensor matrix_, matrix_bias_;  // the weight's [n, padded heads, hidden + scalar], [n, padded heads] float
  at::Tensor norms_;                 // ones that the projectors' norms are now, [n, norms, hidden]
  std::vector<at::Tensor> watched_;
  std::vector<int64_t> versions_;
};

}  // namespace c2c::cuda
