// What a gated tower is made of, for those who compute it in another form.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace c2c {

// in [hidden, sharer width + receiver width], the blocks' up [inner, hidden] and down [hidden, inner], weight [heads,
// hidden], out [receiver width, hidden]. The tower: h = in · (sharer, receiver) + in_bias; a block adds
// down · gelu(up · norm(h)) to h; `shared` change h, `scalar` a copy of it that the weight sigmoid(weight · h +
// weight_bias) comes from, `blocks` change h again; the receiver's rows grow by weight · (out · h + out_bias). Where
// there is no weight it is one, and its tensors are undefined.
struct TowerTensors {
  struct Block {
    at::Tensor norm, up, down;
  };
  at::Tensor in, in_bias, weight, weight_bias, out, out_bias;
  std::vector<Block> shared, blocks;
  Block scalar;
};

}  // namespace c2c
