// Constructors of the projector kinds; the table in registry.cpp names them.
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

// Gated towers, each for key and value: concat(sharer, receiver) -> projection, scaled by a weight and a gate.
std::unique_ptr<Projector> make_gated_tower(const ProjectorInit& init);
// The same towers with parts left out, by option `ablation_level` (0 leaves out nothing).
std::unique_ptr<Projector> make_ablated_tower(const ProjectorInit& init);
// A projection of the sharer's rows alone with one gate for key and value, at a choice of granularities.
std::unique_ptr<Projector> make_all_in_one(const ProjectorInit& init);

}  // namespace c2c
