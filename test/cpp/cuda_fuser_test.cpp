// A fusion on a CUDA device against the plain one in float64. Prints "N passed, N failed"; without a device (or without
// the kernels) it says so and returns 77, which is neither.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>

#include <cmath>

#include "check.h"
#include "cuda/cuda.h"
#include "cuda_device.h"
#include "cuda_fuser.h"
#include "fuser/tower_tensors.h"

#ifdef C2C_CUDA
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda/tower.h"
#endif

using namespace c2c;

namespace {

bool close(double a, double b, double bound) { return std::abs(a - b) <= bound; }

// Error of the plain path in the fuser's dtype, of the rows of one contribution's only span.
double plain_error(const Case& c, const World& w, const at::Tensor& before, const at::Tensor& want) {
  const FuseSpan& s = c.spans[0];
  double error = 0, size = 0;
  for (const FuserLayer& layer : w.there[0].fuser->layers) {
    const KvCache& sharer = *w.there[0].sharer;
    const auto rows = [&](const KvCache& cache, int64_t index, int64_t start, int64_t end) {
      return Rows{cache.rows(index, 0, start, end).to(kDevice), cache.rows(index, 1, start, end).to(kDevice)};
    };
    const Projected made =
        layer.projector->project(rows(sharer, layer.sharer_layer, s.sharer_start, s.sharer_end),
                                 rows(*w.device, layer.receiver_layer, s.receiver_start, s.receiver_end), nullptr, 1);
    for (int64_t part = 0; part < 2; ++part) {
      const at::Tensor& got = part == 0 ? made.key : made.value;
      if (!got.defined()) continue;
      const auto cut = [&](const at::Tensor& all) {
        return all.select(0, layer.receiver_layer * 2 + part)
            .narrow(0, s.receiver_start, s.receiver_end - s.receiver_start);
      };
      error += std::pow(length(got.to(at::kCPU, at::kDouble) - cut(want)), 2);
      size += std::pow(length(cut(want) - cut(before)), 2);
    }
  }
  return std::sqrt(error / size);
}

bool same_reports(const std::vector<FuseReport>& got, const std::vector<FuseReport>& want, double bound) {
  bool ok = got.size() == want.size();
  for (size_t i = 0; ok && i < got.size(); ++i) {
    ok = got[i].positions == want[i].positions && got[i].layers.size() == want[i].layers.size();
    for (size_t l = 0; ok && l < got[i].layers.size(); ++l) {
      const LayerReport &a = got[i].layers[l], &b = want[i].layers[l];
      ok = a.layer == b.layer && a.key == b.key && a.value == b.value && close(a.key_weight, b.key_weight, bound) &&
           close(a.value_weight, b.value_weight, bound);
    }
  }
  return ok;
}

void compare(Case c, const std::string& name) {
  run(c.shape.name + ": " + name, [&] {
    const World w = make_world(c);
    const bool half = c.fuser == at::kBFloat16 || c.receiver == at::kBFloat16;
    const double bound = half ? 1e-2 : 1e-4;
    const at::Tensor before = all_rows(*w.device);
    const auto parent = c.forked ? w.device->fork() : nullptr;
    const auto want_reports = c2c::fuse(*w.reference, w.here, c.parallel, nullptr);
    const at::Tensor want = all_rows(*w.reference);
    const bool beside = half && c.sharers == 1 && c.spans.size() == 1;
    const double plain = beside ? plain_error(c, w, before, want) : 0;
    const auto reports = cuda::fuse(*w.device, w.there, c.parallel, nullptr);
    if (!reports) {
      std::printf("%s: no form of it\n", name.c_str());
      return false;
    }
    const at::Tensor got = all_rows(*w.device);
    const double added = length(want - before), error = length(got - want);
    bool ok = same_reports(*reports, want_reports, half ? 5e-3 : 1e-4);
    if (!ok) std::printf("%s: the reports differ\n", name.c_str());
    // Rows that no span has, and closed parts, are what they were.
    const at::Tensor still = want == before;
    const bool kept = at::equal(got.masked_select(still), before.masked_select(still));
    if (!kept) std::printf("%s: rows changed that nothing fuses\n", name.c_str());
    ok = ok && kept && (parent == nullptr || at::equal(all_rows(*parent), before));
    ok = ok && (added > 0 ? error / added < bound : error == 0);
    if (beside && added > 0)
      std::printf("%s, %s: error %.2e, the plain path's %.2e\n", c.shape.name.c_str(), name.c_str(), error / added,
                  plain);
    if (!ok) std::printf("%s: error %g of %g\n", name.c_str(), error, added);
    return ok;
  });
}

void all_cases(at::ScalarType type) {
  const std::string suffix = type == at::kFloat ? ", float32" : ", bfloat16";
  const auto add = [&](const std::string& name, const Shape& shape, const std::function<void(Case&)>& change) {
    Case c{.name = name};
    c.shape = shape;
    c.fuser = c.receiver = c.sharer = type;
    change(c);
    compare(c, name + suffix);
  };
  const std::vector<FuseSpan> three{{1, 8, 30, 37}, {8, 9, 2, 3}, {17, 40, 3, 26}};
  for (const Shape& shape : kShapes) {
    add("one span", shape, [](Case&) {});
    add("one row", shape, [](Case& c) { c.spans = {{7, 8, 9, 10}}; });
    add("three spans, one empty", shape, [&](Case& c) {
      c.spans = three;
      c.spans.push_back({42, 42, 0, 0});
    });
    add("some gates closed", shape,
        [](Case& c) { c.open = [](size_t layer, int64_t part) { return layer != 1 && (layer != 2 || part == 1); }; });
    add("all closed", shape, [](Case& c) { c.open = [](size_t, int64_t) { return false; }; });
    add("layers in no order", shape, [](Case& c) { c.layers = {{5, 3}, {0, 0}, {3, 0}}; });
    add("no weight", shape, [](Case& c) { c.no_weight = true; });
    for (const bool parallel : {false, true})
      add(parallel ? "two sharers, parallel" : "two sharers, in order", shape, [&](Case& c) {
        c.sharers = 2;
        c.parallel = parallel;
        c.spans = three;
        c.layers = {{1, 3}, {4, 2}};
      });
    add("sharer on the CPU", shape, [&](Case& c) {
      c.sharer_on_cpu = true;
      c.spans = three;
      c.layers = {{5, 3}, {0, 0}, {3, 0}};
    });
    add("fork", shape, [&](Case& c) {
      c.forked = true;
      c.spans = three;
    });
  }
  add("caches of another dtype", kShapes[0], [&](Case& c) {
    c.receiver = type == at::kFloat ? at::kBFloat16 : at::kFloat;
    c.sharer = c.receiver;
  });
  add("one row", kReal, [](Case& c) { c.spans = {{7, 8, 9, 10}}; });
  if (kEmulated) return;
  // More rows than one batch of towers has room for.
  add("long", kReal, [](Case& c) {
    c.rows = 2201;
    c.spans = {{100, 2201, 0, 2101}};
    c.reference = kDevice;
  });
}

// Rows that lie in segments of several blocks: a fork that goes on, and is fused across.
void segments() {
  run("rows in several segments", [] {
    Case c{.name = "segments"};
    c.spans = {{5, 80, 0, 75}};
    c.rows = 85;
    const World w = make_world(c);
    const auto whole = all_rows(*w.device);
    auto first = w.device->fork();
    first->truncate(41);
    auto cut = first->fork();
    cut->append(*w.device, 41, 70);
    cut->append(*w.device, 70, 85);
    if (cut->slices(5, 80).size() < 2) return false;
    c2c::fuse(*w.reference, w.here, false, nullptr);
    if (!cuda::fuse(*cut, w.there, false, nullptr)) return false;
    const at::Tensor want = all_rows(*w.reference);
    return length(all_rows(*cut) - want) / length(want - whole) < 1e-4 && at::equal(all_rows(*w.device), whole);
  });
}

void cancelled() {
  run("a cancelled fusion leaves the rows", [] {
    Case c{.name = "cancelled"};
    c.sharers = 2;
    const World w = make_world(c);
    const auto before = all_rows(*w.device);
    auto cancel = std::make_shared<std::atomic<bool>>(true);
    bool stopped = false;
    try {
      cuda::fuse(*w.device, w.there, false, cancel);
    } catch (const Cancelled&) {
      stopped = true;
    }
    return stopped && at::equal(all_rows(*w.device), before);
  });
}

// The projectors' own weights are views of the batch from the first fusion on: what they make by themselves stays.
void projectors_stay() {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    run("projectors after a fusion", [&] {
      Case c{.name = "projectors"};
      c.fuser = c.receiver = c.sharer = type;
      const World w = make_world(c);
      const Rows from{w.there[0].sharer->rows(1, 0, 0, 9), w.there[0].sharer->rows(1, 1, 0, 9)};
      const Rows onto{w.device->rows(1, 0, 20, 29), w.device->rows(1, 1, 20, 29)};
      const auto project = [&] { return w.there[0].fuser->layers[1].projector->project(from, onto, nullptr, 1); };
      const Projected before = project();
      Case other = c;
      other.spans = {{40, 43, 0, 3}};
      auto contributions = w.there;
      contributions[0].spans = other.spans;
      if (!cuda::fuse(*w.device, contributions, false, nullptr)) return false;
      const Projected after = project();
      const double bound = type == at::kFloat ? 1e-5 : 1e-2;
      const auto near = [&](const at::Tensor& a, const at::Tensor& b, const at::Tensor& base) {
        return length((a - b).to(at::kDouble)) / length((b - base).to(at::kDouble)) < bound;
      };
      return near(after.key, before.key, onto.key) && near(after.value, before.value, onto.value);
    });
}

void changed_weights() {
  run("a weight that is changed in place counts", [] {
    Case c{.name = "changed"};
    World w = make_world(c);
    auto second = cache_of(all_rows(*w.device).unflatten(0, {kReceiverLayers, 2}), at::kFloat, kDevice);
    const auto before = all_rows(*second);
    if (!cuda::fuse(*w.device, w.there, false, nullptr)) return false;
    TowerTensors tower;
    if (!w.there[0].fuser->layers[0].projector->tower(0, tower)) return false;
    tower.shared[0].norm.mul_(2);
    if (!w.here[0].fuser->layers[0].projector->tower(0, tower)) return false;
    tower.shared[0].norm.mul_(2);
    c2c::fuse(*w.reference, w.here, false, nullptr);
    if (!cuda::fuse(*second, w.there, false, nullptr)) return false;
    const at::Tensor want = all_rows(*w.reference);
    return length(all_rows(*second) - want) / length(want - before) < 1e-4;
  });
}

#ifdef C2C_CUDA
// The kernel's GELU over its whole range, behind rows whose norm is one.
void exact_gelu() {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const int64_t width : {int64_t{4096}, int64_t{4093}})
      run("the GELU is the exact one", [&] {
        constexpr int64_t kHidden = 64;
        const at::Tensor values = at::linspace(-12, 12, width, at::kDouble).to(type);
        at::Tensor x = at::ones({1, 3, kHidden + width}, type).to(kDevice);
        x.narrow(2, kHidden, width).copy_(values);
        cuda::norm_gelu({x.data_ptr(), x.stride(0), x.stride(1), type == at::kBFloat16}, kHidden, width, 1, 3,
                        c10::cuda::getCurrentCUDAStream());
        const at::Tensor full = values.to(at::kDouble) / std::sqrt(1 + 1e-6);
        const at::Tensor want = full * 0.5 * (full * (-std::sqrt(0.5))).erfc();
        const at::Tensor got = x.narrow(2, kHidden, width).to(at::kCPU, at::kDouble);
        const at::Tensor error = (got - want).abs();
        const double relative = type == at::kFloat ? 2e-6 : 4.5e-3;  // bfloat16 rounds by 3.9e-3 at most
        const bool right = (error <= want.abs() * relative + 1e-6).all().item<bool>();
        const at::Tensor rest = x.narrow(2, 0, kHidden);
        return right && at::equal(rest, at::ones_like(rest));
      });
}
#endif

}  // namespace

int main() {
  if (!cuda_device()) return kNotRun;
  at::manual_seed(1);
#ifdef C2C_CUDA
  exact_gelu();
#endif
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) all_cases(type);
  segments();
  cancelled();
  projectors_stay();
  changed_weights();
  return result();
}
