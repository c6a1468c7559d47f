// Random fusers and caches for a fusion on a CUDA device, and the same in float64 to compare with.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>

#include <cmath>
#include <functional>

#include "cuda_device.h"
#include "fuser/fuser.h"

namespace c2c {

constexpr int64_t kReceiverLayers = 6, kSharerLayers = 4;

struct Shape {
  std::string name;
  HeadShape receiver, sharer;
  int64_t hidden, inner, layers;  // layers: of the projector's kind, at least 3
};

inline const Shape kShapes[] = {
    {"even", {8, 32}, {2, 16}, 256, 192, 3},
    {"odd", {3, 5}, {1, 7}, 37, 51, 3},
    {"deep, twelve heads", {12, 16}, {2, 24}, 96, 160, 5},
    {"many heads", {17, 8}, {2, 12}, 64, 40, 3},
};
inline const Shape kReal{"real", {8, 128}, {2, 64}, 1024, 1024, 3};

struct Case {
  std::string name;
  Shape shape = kShapes[0];
  std::vector<FuseSpan> spans{{3, 34, 5, 36}};
  at::ScalarType fuser = at::kFloat, receiver = at::kFloat, sharer = at::kFloat;
  std::vector<std::pair<int64_t, int64_t>> layers{{0, 0}, {1, 1}, {2, 2}, {3, 3}};  // receiver's, sharer's
  std::function<bool(size_t layer, int64_t part)> open = [](size_t, int64_t) { return true; };
  int64_t sharers = 1;
  int64_t rows = 43;  // in each cache
  bool parallel = false, sharer_on_cpu = false, forked = false, no_weight = false;
  at::Device reference = at::kCPU;
};

inline at::Tensor rounded(const at::Tensor& x, at::ScalarType type) { return x.to(type).to(at::kDouble); }

// Weights of one layer in float64, of values that `type` has.
inline Tensors layer_weights(const Case& c, size_t layer) {
  Tensors weights;
  const auto& s = c.shape;
  for (int64_t part = 0; part < 2; ++part) {
    const std::string name = part == 0 ? "key" : "value";
    const auto add = [&](const std::string& key, const std::vector<int64_t>& sizes, double scale, double offset = 0) {
      weights[name + key] = rounded(at::randn(sizes, at::kDouble) * scale + offset, c.fuser);
    };
    const auto linear = [&](const std::string& key, int64_t out, int64_t in) {
      add(key + ".weight", {out, in}, 1 / std::sqrt(static_cast<double>(in)));
      add(key + ".bias", {out}, 0.3);
    };
    const auto block = [&](const std::string& key, int64_t inner) {
      add(key + ".norm.weight", {s.hidden}, 0.3, 1);
      add(key + ".w1.weight", {inner, s.hidden}, 1 / std::sqrt(static_cast<double>(s.hidden)));
      add(key + ".w2.weight", {s.hidden, inner}, 1 / std::sqrt(static_cast<double>(inner)));
    };
    linear("_in", s.hidden, s.sharer.width() + s.receiver.width());
    block("_mlp1.blocks.0", s.inner);
    if (!c.no_weight) {
      block("_scalar_mlp2.blocks.0", s.hidden);
      linear("_scalar_head", s.receiver.kv_heads, s.hidden);
    }
    for (int64_t i = 0; i < s.layers - 2; ++i) block("_proj_mlp2.blocks." + std::to_string(i), s.inner);
    linear("_proj_out", s.receiver.width(), s.hidden);
    if (!c.no_weight) weights[name + "_gate_logit"] = at::full({}, c.open(layer, part) ? 0.5 : -0.5, at::kDouble);
  }
  return weights;
}

inline std::shared_ptr<Fuser> make_fuser(const Case& c, const std::vector<Tensors>& weights, at::ScalarType type,
                                         at::Device device) {
  auto fuser = std::make_shared<Fuser>();
  fuser->receiver = c.shape.receiver;
  fuser->sharer = c.shape.sharer;
  fuser->dtype = type;
  fuser->device = device;
  const auto number = [](int64_t x) { return static_cast<double>(x); };
  Options options{{"hidden_dim", number(c.shape.hidden)},
                  {"intermediate_dim", number(c.shape.inner)},
                  {"num_layers", number(c.shape.layers)}};
  if (c.no_weight) options["ablation_level"] = 2.0;
  for (size_t i = 0; i < weights.size(); ++i) {
    Tensors own;
    for (const auto& [name, tensor] : weights[i]) own[name] = tensor.to(device, type);
    fuser->layers.push_back({c.layers[i].first, c.layers[i].second,
                             make_projector(c.no_weight ? "AblationProjector" : "C2CProjector", options,
                                            c.shape.receiver, c.shape.sharer, std::move(own), type)});
  }
  return fuser;
}

// [layers, 2, rows, heads, dim] in float64, of values that `type` has.
inline at::Tensor random_rows(HeadShape heads, int64_t layers, int64_t rows, at::ScalarType type) {
  return rounded(at::randn({layers, 2, rows, heads.kv_heads, heads.head_dim}, at::kDouble), type);
}

inline std::shared_ptr<KvCache> cache_of(const at::Tensor& rows, at::ScalarType type, at::Device device) {
  const CacheLayout layout{rows.size(0), rows.size(3), rows.size(4), 4096, type, device};
  auto cache = std::make_shared<KvCache>(layout, rows.size(2) + 3, true);
  const std::vector<uint32_t> ids(static_cast<size_t>(rows.size(2)), 1);
  cache->reserve(rows.size(2));
  for (int64_t layer = 0; layer < rows.size(0); ++layer)
    for (int64_t part = 0; part < 2; ++part)
      cache->rows(layer, part, 0, rows.size(2)).copy_(rows.select(0, layer).select(0, part));
  cache->commit(ids.data(), ids.data(), rows.size(2));
  return cache;
}

inline at::Tensor all_rows(const KvCache& cache) {
  std::vector<at::Tensor> parts;
  for (int64_t layer = 0; layer < cache.layout().layers; ++layer)
    for (int64_t part = 0; part < 2; ++part)
      parts.push_back(cache.rows(layer, part, 0, cache.length()).to(at::kCPU, at::kDouble));
  return at::stack(parts, 0);  // [layers · 2, rows, heads, dim]
}

inline double length(const at::Tensor& x) { return x.norm().item<double>(); }

struct World {
  std::vector<Contribution> here, there;  // the reference's and the device's
  std::shared_ptr<KvCache> reference, device;
};

inline World make_world(const Case& c) {
  World w;
  const at::Tensor rows = random_rows(c.shape.receiver, kReceiverLayers, c.rows, c.receiver);
  w.reference = cache_of(rows, at::kDouble, c.reference);
  w.device = cache_of(rows, c.receiver, kDevice);
  for (int64_t i = 0; i < c.sharers; ++i) {
    std::vector<Tensors> weights;
    for (size_t layer = 0; layer < c.layers.size(); ++layer) weights.push_back(layer_weights(c, layer));
    const at::Tensor theirs = random_rows(c.shape.sharer, kSharerLayers, c.rows, c.sharer);
    w.here.push_back(
        {make_fuser(c, weights, at::kDouble, c.reference), cache_of(theirs, at::kDouble, c.reference), c.spans});
    w.there.push_back({make_fuser(c, weights, c.fuser, kDevice),
                       cache_of(theirs, c.sharer, c.sharer_on_cpu ? at::Device(at::kCPU) : kDevice), c.spans});
  }
  return w;
}

}  // namespace c2c
