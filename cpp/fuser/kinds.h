// What a projector kind is made of. A kind is a file in this folder with a maker, and a line in kinds.inl.
#pragma once
#include <memory>

#include "fuser/fuser.h"
#include "fuser/parts.h"

namespace c2c {

// What a kind's constructor gets; it takes every tensor out of `weights`, and the registry checks that none is left.
struct ProjectorInit {
  const OptionReader& options;
  HeadShape receiver, sharer;
  WeightReader& weights;
  at::ScalarType dtype;
  std::shared_ptr<at::Generator> random;  // of dropout, in training; null: none
};

}  // namespace c2c
