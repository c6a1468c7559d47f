#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mean.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <chrono>

#include "cuda/cuda.h"
#include "cuda/stacked_tower.h"

namespace c2c::cuda {

namespace {

int64_t positions(const Contribution& contribution) {
  int64_t sum = 0;
  for (const FuseSpan& span : contribution.spans) sum += span.receiver_end - span.receiver_start;
  return sum;
}

std::vector<FuseSpan> filled(const std::vector<FuseSpan>& spans) {
  std::vector<FuseSpan> all;
  for (const FuseSpan& span : spans)
    if (span.receiver_end > span.receiver_start) all.push_back(span);
  return all;
}

std::shared_ptr<const StackedTowers> stacked(const Fuser& fuser) {
  auto kept = std::dynamic_pointer_cast<StackedTowers>(fuser.prepared);
  if (!kept || !kept->fits()) {
    kept = StackedTowers::make(fuser);
    fuser.prepared = kept;
  }
  return kept;
}

// A copy of the receiver's rows [start, end), in another dtype, as an arena of its own.
at::Tensor draft_of(const KvCache& receiver, int64_t start, int64_t end, at::ScalarType dtype) {
  const CacheLayout& l = receiver.layout();
  at::Tensor draft =
      at::empty({l.layers, 2, end - start, l.kv_heads, l.head_dim}, at::TensorOptions().dtype(dtype).device(l.device));
  for (const Slice& s : receiver.slices(start, end))
    draft.narrow(2, s.at - start, s.end - s.start)
        .copy_(receiver.segments()[s.segment].block->arena().narrow(2, s.start, s.end - s.start));
  return draft;
}

void write_back(KvCache& receiver, int64_t start, const at::Tensor& draft) {
  for (const Slice& s : receiver.slices(start, start + draft.size(2)))
    receiver.segments()[s.segment]
        .block->arena()
        .narrow(2, s.start, s.end - s.start)
        .copy_(draft.narrow(2, s.at - start, s.end - s.start));
}

std::vector<LayerReport> layer_reports(const Fuser& fuser, const StackedTowers& towers, const at::Tensor& weights) {
  std::vector<LayerReport> reports;
  for (const FuserLayer& layer : fuser.layers) reports.push_back({.layer = layer.receiver_layer});
  at::Tensor means;  // one transfer, which also waits for the whole fusion
  if (weights.defined()) means = at::mean(weights, at::IntArrayRef{1, 2}).to(at::kCPU);
  for (size_t i = 0; i < towers.members().size(); ++i) {
    const Member m = towers.members()[i];
    const double mean = means.defined() ? means.const_data_ptr<float>()[i] : 1.0;
    LayerReport& report = reports[m.layer];
    (m.part == 0 ? report.key : report.value) = true;
    (m.part == 0 ? report.key_weight : report.value_weight) = mean;
  }
  return reports;
}

}  // namespace

std::optional<std::vector<FuseReport>> fuse(KvCache& receiver, const std::vector<Contribution>& contributions,
                                            bool parallel, const CancelFlag& cancel) {
  const CacheLayout& layout = receiver.layout();
  if (layout.dtype != at::kFloat && layout.dtype != at::kBFloat16) return std::nullopt;
  const at::NoGradGuard no_grad;
  const c10::cuda::CUDAGuard guard(layout.device);
  std::vector<std::shared_ptr<const StackedTowers>> towers;
  int64_t start = receiver.length(), end = 0, writers = 0;
  for (const Contribution& c : contributions) {
    towers.push_back(positions(c) == 0 ? nullptr : stacked(*c.fuser));
    if (positions(c) == 0) continue;
    if (!towers.back() || c.sharer.get() == &receiver) return std::nullopt;
    if (towers.back()->members().empty()) continue;
    ++writers;
    for (const FuseSpan& span : filled(c.spans)) {
      start = std::min(start, span.receiver_start);
      end = std::max(end, span.receiver_end);
    }
  }
  check(cancel);
  // One contribution adds to the cache itself: nothing can stop it once it has begun. Several work on a copy.
  const bool sum = parallel && writers > 1;
  at::Tensor draft;
  if (writers > 0) receiver.own(start, end);
  if (writers > 1) draft = draft_of(receiver, start, end, sum ? at::kFloat : layout.dtype);
  std::vector<FuseReport> reports;
  for (size_t i = 0; i < contributions.size(); ++i) {
    const Contribution& c = contributions[i];
    const auto begin = std::chrono::steady_clock::now();
    FuseReport report;
    report.positions = positions(c);
    if (report.positions > 0) {
      const auto spans = filled(c.spans);
      at::Tensor weights;
      if (!towers[i]->members().empty()) {
        const auto layers = towers[i]->layers(*c.fuser, true);
        const Places sharer =
            sharer_places(*c.sharer, spans, towers[i]->layers(*c.fuser, false), layout.device, c.fuser->dtype);
        const auto onto = [&] { return places_in(receiver, spans, true, layers, layout.device).value(); };
        const Places to = draft.defined() ? draft_places(draft, start, spans, layers) : onto();
        check(cancel);
        weights = towers[i]->project(sharer, sum ? onto() : to, to, report.positions);
      }
      report.layers = layer_reports(*c.fuser, *towers[i], weights);
    }
    report.ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    reports.push_back(std::move(report));
  }
  if (draft.defined()) {
    check(cancel);
    write_back(receiver, start, draft);
  }
  return reports;
}

}  // namespace c2c::cuda
