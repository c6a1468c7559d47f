// Weights in the layout of the kernels (see kernels.h), in one piece of memory for a whole model or fuser.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/kernels.h"

namespace c2c {

// One weight [out, in] of sections that are each padded to whole blocks.
struct Packed {
  Store store = Store::kFloat;
  int64_t in = 0, blocks = 0;
  const std::byte* data = nullptr;
  const float* bias = nullptr;

  int64_t outputs() const { return blocks * kBlock; }
  int64_t padded_in() const { return padded_inputs(store, in); }
  // The product's weight and shape; the caller adds rows and what follows.
  Product product() const {
    Product p;
    p.store = store;
    p.in = in;
    p.weight = data;
    p.bias = bias;
    p.outputs = outputs();
    return p;
  }
};

// What a packed weight is made of: tensors [out, in] below each other, each padded to whole blocks.
struct PackSource {
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> biases;  // empty, or one (perhaps undefined) for each weight
  // Gate and up in one: every block holds 32 outputs of the first weight and the same 32 of the second.
  bool paired = false;
  Store store = Store::kFloat;
};

// Owns packed weights. Add what there is, then pack: it reserves memory once and fills it with all threads.
class PackedWeights {
 public:
  PackedWeights() = default;
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;
  ~PackedWeights();

  // `target` is filled by pack(), and must stay where it is until then.
  void add(PackSource source, Packed* target);
  // Lets each source go once it is packed, and the memory of mapped ones. OUT_OF_MEMORY.
  void pack();
  int64_t bytes() const { return static_cast<int64_t>(size_); }

 private:
  struct Item {
    PackSource source;
    Packed* target;
    size_t at, bias_at;
  };
  std::vector<Item> items_;
  std::byte* memory_ = nullptr;
  size_t size_ = 0, mapped_ = 0;
};

}  // namespace c2c
