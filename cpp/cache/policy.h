// What may leave a full cache. A policy plans, the cache carries the plan out (cpp/cache/edit.h, `keep`): a policy is
// one file in cpp/cache/policies and its name in the list of policies.cpp.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace c2c {

// What a policy may look at.
struct Occupancy {
  int64_t layers, length, capacity;
  int64_t incoming;  // rows that want to come in
};

struct RowRange {
  int64_t start, end;
  bool operator==(const RowRange&) const = default;
};

// The rows that stay, ascending and apart. One entry: the same in every layer; else one for each layer, equally many
// rows in all of them.
struct EvictionPlan {
  std::vector<std::vector<RowRange>> keep;
  // Kept rows stand at their place in the cache from now on: keys are turned there. Else they keep their positions.
  bool places = true;
};

class Policy {
 public:
  virtual ~Policy() = default;
  virtual const char* name() const = 0;
  // Called where `incoming` rows do not fit. The plan leaves room for them.
  virtual EvictionPlan plan(const Occupancy& now) const = 0;
  // How many rows may come in at once into a cache of `capacity`.
  virtual int64_t most(int64_t capacity) const = 0;
};

// A policy by its name, with its numbers by theirs; OPTION_INVALID for what it cannot work with.
struct PolicyOptions {
  std::string kind;
  std::vector<std::pair<std::string, int64_t>> numbers;
};
std::shared_ptr<const Policy> make_policy(const PolicyOptions& options, int64_t capacity);

}  // namespace c2c
