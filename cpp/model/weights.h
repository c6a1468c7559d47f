// The weights of one decoder, by their role. Training reads and updates the same tensors.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/linear.h"
#include "model/spec.h"

namespace c2c {

struct Layer {
  at::Tensor input_norm, attention_norm, feed_norm, feed_post_norm, query_norm, key_norm;
  Linear query, key, value, output, gate, up, down;
};

struct DecoderWeights {
  at::Tensor embedding, final_norm, head;  // head is the embedding itself where the spec says tied
  std::vector<Layer> layers;
  int64_t bytes = 0;
};

// Names and shapes of the spec's tensors, in the order of the computation.
std::vector<std::pair<std::string, std::vector<int64_t>>> weight_shapes(const DecoderSpec& spec);
// Lays weights that multiply the same rows below each other in memory (query, key and value; gate and up) and makes the
// layers' tensors views of them.
void stack_weights(DecoderWeights& weights);
// Takes the spec's tensors out of `tensors`. SHAPE_MISMATCH for a missing, extra or mis-shaped one.
DecoderWeights take_weights(const DecoderSpec& spec, std::unordered_map<std::string, at::Tensor> tensors);

}  // namespace c2c
