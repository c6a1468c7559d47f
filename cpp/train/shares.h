// A batch dealt out to threads, whole samples to each. Operations of small models are over so soon that threads which
// meet at the end of every one lose more than they gain: here each computes its samples from the first operation to the
// last gradient, and they meet once.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "train/parameters.h"

namespace c2c {

// Ends of `shares` runs of samples, of about as many rows each and at least one sample: the last is rows.size().
std::vector<int64_t> deal(const std::vector<int64_t>& rows, int64_t shares);

class Shares {
 public:
  // Gradients that the leaves given to it are to get, and a loss, both of samples [begin, end); `share` counts from 0.
  using Compute = std::function<double(const Leaves& leaves, int64_t share, int64_t begin, int64_t end)>;

  // Computes a batch whose samples have so many rows; the sum of its losses. As many shares as there are threads, or
  // one, in which operations use the threads themselves: where samples are fewer than half the threads, and where
  // the shares' gradients would take more than 128 MB. Sums have an order, so the same batch on the same number of
  // threads gives the same numbers.
  double accumulate(const Parameters& parameters, const std::vector<int64_t>& rows, const Compute& compute);

 private:
  std::vector<Leaves> twins_;  // of all shares but the first, whose gradients are the parameters' own
};

}  // namespace c2c
