// A build without CUDA.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "cuda/cuda.h"

namespace c2c::cuda {

bool compiled() { return false; }

std::vector<DeviceFacts> devices() {
  if (!c10::impl::hasDeviceGuardImpl(at::kCUDA)) return {};
  return std::vector<DeviceFacts>(c10::impl::getDeviceGuardImpl(at::kCUDA)->deviceCount());
}

std::unique_ptr<Runner> make_runner(const DecoderSpec&, const DecoderWeights&, at::ScalarType) { return nullptr; }

std::optional<std::vector<FuseReport>> fuse(KvCache&, const std::vector<Contribution>&, bool, const CancelFlag&) {
  return std::nullopt;
}

void side_by_side(at::Device, const std::vector<std::function<void()>>& jobs) {
  for (const auto& job : jobs) job();
}

}  // namespace c2c::cuda
