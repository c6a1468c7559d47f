// What computes on CUDA devices: this folder, with the kernels of cpp/kernels/cuda. A build without CUDA has absent.cpp
// alone; with a libtorch for CUDA it still runs there, on plain ATen operations.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fuser/fuser.h"
#include "model/runner.h"

namespace c2c::cuda {

// Whether this build has the kernels.
bool compiled();

// A CUDA device: its name and bytes of memory ("" and 0 where this build cannot ask), and whether this build's kernels
// run there.
struct DeviceFacts {
  std::string name;
  int64_t memory = 0;
  bool kernels = false;
};

// By index; none before libtorch's part for CUDA is loaded, or without a driver.
std::vector<DeviceFacts> devices();

// Runs decoders on the weights' device. Null where this build has no kernels, or none for this shape: plain operations
// run then.
std::unique_ptr<Runner> make_runner(const DecoderSpec& spec, const DecoderWeights& weights, at::ScalarType dtype);

// As c2c::fuse, with the products of all layers, keys and values in one batch each; nothing, and nothing done, where a
// projector, a dtype or the caches' rows have no such form. Arguments are checked.
std::optional<std::vector<FuseReport>> fuse(KvCache& receiver, const std::vector<Contribution>& contributions,
                                            bool parallel, const CancelFlag& cancel);

// Runs jobs that touch nothing in common, each on a stream of its own; work that is submitted afterwards waits for all
// of them. One after the other where this build has no kernels. Throws what the first failing job threw.
void side_by_side(at::Device device, const std::vector<std::function<void()>>& jobs);

}  // namespace c2c::cuda
