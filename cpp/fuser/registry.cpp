#include <array>
#include <string_view>

#include "fuser/kinds.h"

namespace c2c {

namespace {

struct Kind {
  std::string_view name;
  std::unique_ptr<Projector> (*make)(const ProjectorInit&);
};

constexpr std::array kKinds{
    Kind{"C2CProjector", make_gated_tower},
    Kind{"AblationProjector", make_ablated_tower},
    Kind{"AllInOneProjector", make_all_in_one},
};

}  // namespace

Projector::~Projector() = default;

std::unique_ptr<Projector> make_projector(const std::string& kind, const Options& options, HeadShape receiver,
                                          HeadShape sharer, Tensors weights, at::ScalarType dtype) {
  for (const Kind& entry : kKinds) {
    if (entry.name != kind) continue;
    OptionReader reader(options);
    WeightReader tensors(std::move(weights), dtype);
    auto projector = entry.make({reader, receiver, sharer, tensors, dtype});
    projector->bytes_ = tensors.finish();
    return projector;
  }
  std::vector<std::string> supported;
  for (const Kind& entry : kKinds) supported.emplace_back(entry.name);
  unsupported("projector kind \"" + kind + "\"", std::move(supported));
}

int64_t Fuser::bytes() const {
  int64_t total = 0;
  for (const FuserLayer& layer : layers) total += layer.projector->bytes();
  return total;
}

}  // namespace c2c
