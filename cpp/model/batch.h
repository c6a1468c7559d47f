// A ragged batch: several sequences' rows, one behind the other.
#pragma once
#include <cstdint>
#include <vector>

namespace c2c {

// One request's share of the batch: `rows` rows from `first` on, behind `past` rows of its cache.
struct Share {
  int64_t first = 0, rows = 0, past = 0;
  std::vector<uint32_t> positions;  // of all rows that it sees, where a window may hide some
};

struct Batch {
  std::vector<Share> shares;
  std::vector<uint32_t> tokens, positions;
  bool any_logits = false;  // else the last block stops after its keys and values
  bool all_given = true;    // nobody's keys and values are computed

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
};

}  // namespace c2c
