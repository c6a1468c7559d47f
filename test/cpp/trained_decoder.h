// Small decoders in float64, for checks of gradients.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "model/decoder.h"

namespace c2c {

inline DecoderSpec small_spec(bool gemma) {
  DecoderSpec spec;
  spec.hidden = 8;
  spec.heads = 4;
  spec.kv_heads = 2;
  spec.head_dim = 4;
  spec.intermediate = 6;
  spec.vocab = 13;
  spec.context = 64;
  spec.query_scale = 0.5;
  spec.tied = !gemma;
  spec.qk_norm = true;
  spec.qkv_bias = !gemma;
  spec.ropes = {{1.0, 0.1}};
  spec.layers = {{0, gemma ? 3 : 0}, {0, 0}, {0, 0}};
  if (gemma) {
    spec.norm_offset = 1;
    spec.post_norms = true;
    spec.activation = Activation::kGeluTanh;
    spec.embedding_scale = 2;
    spec.logit_softcap = 5;
    spec.head = "head";
  }
  return spec;
}

inline std::shared_ptr<const Decoder> random_decoder(const DecoderSpec& spec, uint64_t seed,
                                                     at::Device device = at::kCPU) {
  auto random = at::make_generator<at::CPUGeneratorImpl>(seed);
  std::unordered_map<std::string, at::Tensor> weights;
  for (const auto& [name, shape] : weight_shapes(spec))
    weights.emplace(name, at::randn(shape, random, at::kDouble) * 0.5);
  return std::make_shared<Decoder>(spec, std::move(weights), at::kDouble, Quantize::kNone, device);
}

}  // namespace c2c
