#include <ATen/ops/zeros.h>

#include <array>
#include <string_view>

#include "fuser/kinds.h"

namespace c2c {

#define KIND(name, make) std::unique_ptr<Projector> make(const ProjectorInit&);
#include "fuser/kinds.inl"
#undef KIND

namespace {

struct Kind {
  std::string_view name;
  std::unique_ptr<Projector> (*make)(const ProjectorInit&);
};

constexpr std::array kKinds{
#define KIND(name, make) Kind{#name, make},
#include "fuser/kinds.inl"
#undef KIND
};

}  // namespace

Projector::~Projector() = default;

namespace {

const Kind& find_kind(const std::string& name) {
  for (const Kind& entry : kKinds)
    if (entry.name == name) return entry;
  std::vector<std::string> supported;
  for (const Kind& entry : kKinds) supported.emplace_back(entry.name);
  unsupported("projector kind \"" + name + "\"", std::move(supported));
}

}  // namespace

std::unique_ptr<Projector> make_training_projector(const std::string& kind, const Options& options, HeadShape receiver,
                                                   HeadShape sharer, Tensors weights, at::ScalarType dtype,
                                                   std::shared_ptr<at::Generator> random) {
  OptionReader reader(options);
  WeightReader tensors(std::move(weights), dtype);
  auto projector = find_kind(kind).make({reader, receiver, sharer, tensors, dtype, std::move(random)});
  projector->bytes_ = tensors.finish();
  return projector;
}

std::unique_ptr<Projector> make_projector(const std::string& kind, const Options& options, HeadShape receiver,
                                          HeadShape sharer, Tensors weights, at::ScalarType dtype) {
  return make_training_projector(kind, options, receiver, sharer, std::move(weights), dtype, nullptr);
}

std::vector<std::pair<std::string, std::vector<int64_t>>> projector_shapes(const std::string& kind,
                                                                           const Options& options, HeadShape receiver,
                                                                           HeadShape sharer) {
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes;
  OptionReader reader(options);
  WeightReader tensors(
      [&](const std::string& name, const std::vector<int64_t>& shape) {
        shapes.emplace_back(name, shape);
        return at::zeros(shape, at::kFloat);
      },
      at::kFloat);
  find_kind(kind).make({reader, receiver, sharer, tensors, at::kFloat, nullptr});
  return shapes;
}

int64_t Fuser::bytes() const {
  int64_t total = 0;
  for (const FuserLayer& layer : layers) total += layer.projector->bytes();
  return total;
}

}  // namespace c2c
