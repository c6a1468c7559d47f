#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <chrono>

#include "cuda/cuda.h"
#include "fuser/parts.h"
#include "kernels/kernels.h"

namespace c2c {

namespace {

// Rows [start, end) of the receiver that any span covers, and per layer the values they get: undefined where they stay
// as they are.
struct Draft {
  int64_t start = 0, end = 0;
  std::map<int64_t, Rows> layers;
};

void check_layer(const char* name, int64_t layer, const CacheLayout& layout) {
  if (layer < 0 || layer >= layout.layers) shape_mismatch(name, {layer + 1}, {layout.layers});
}

void check_heads(const char* name, HeadShape expected, const CacheLayout& layout) {
  if (expected != HeadShape{layout.kv_heads, layout.head_dim})
    shape_mismatch(name, {expected.kv_heads, expected.head_dim}, {layout.kv_heads, layout.head_dim});
}

void check_spans(const std::vector<FuseSpan>& spans, int64_t receiver_length, int64_t sharer_length) {
  std::vector<std::pair<int64_t, int64_t>> covered;
  for (const FuseSpan& span : spans) {
    if (span.receiver_start < 0 || span.receiver_end < span.receiver_start || span.receiver_end > receiver_length)
      option_invalid("spans", "a receiver range lies outside the cache");
    if (span.sharer_start < 0 || span.sharer_end < span.sharer_start || span.sharer_end > sharer_length)
      option_invalid("spans", "a sharer range lies outside the cache");
    if (span.receiver_end - span.receiver_start != span.sharer_end - span.sharer_start)
      option_invalid("spans", "the ranges of receiver and sharer differ in length");
    if (span.receiver_end > span.receiver_start) covered.emplace_back(span.receiver_start, span.receiver_end);
  }
  std::sort(covered.begin(), covered.end());
  for (size_t i = 1; i < covered.size(); ++i)
    if (covered[i].first < covered[i - 1].second) option_invalid("spans", "receiver ranges overlap");
}

void check_contribution(const KvCache& receiver, const Contribution& contribution) {
  const Fuser& fuser = *contribution.fuser;
  check_heads("receiver heads", fuser.receiver, receiver.layout());
  check_heads("sharer heads", fuser.sharer, contribution.sharer->layout());
  for (const FuserLayer& layer : fuser.layers) {
    check_layer("receiver layers", layer.receiver_layer, receiver.layout());
    check_layer("sharer layers", layer.sharer_layer, contribution.sharer->layout());
  }
  if (fuser.device != receiver.layout().device)
    option_invalid("fuser",
                   "lies on " + fuser.device.str() + ", the receiver's cache on " + receiver.layout().device.str());
  check_spans(contribution.spans, receiver.length(), contribution.sharer->length());
}

// Spans that go through the projector in one call.
std::vector<std::vector<FuseSpan>> group(const std::vector<FuseSpan>& spans, bool together) {
  std::vector<std::vector<FuseSpan>> groups;
  for (const FuseSpan& span : spans) {
    if (span.receiver_end == span.receiver_start) continue;
    if (groups.empty() || !together) groups.emplace_back();
    groups.back().push_back(span);
  }
  return groups;
}

// The receiver's rows of the spans, of rows that begin at `offset`.
at::Tensor gather(const at::Tensor& rows, const std::vector<FuseSpan>& spans, int64_t offset) {
  std::vector<at::Tensor> parts;
  for (const FuseSpan& span : spans)
    parts.push_back(rows.narrow(0, span.receiver_start - offset, span.receiver_end - span.receiver_start));
  return parts.size() == 1 ? parts.front() : at::cat(parts, 0);
}

// The sharer's rows of the spans, one after another.
at::Tensor gather_sharer(const KvCache& sharer, int64_t layer, int64_t part, const std::vector<FuseSpan>& spans,
                         at::Device device) {
  std::vector<at::Tensor> parts;
  for (const FuseSpan& span : spans) parts.push_back(sharer.rows(layer, part, span.sharer_start, span.sharer_end));
  return (parts.size() == 1 ? parts.front() : at::cat(parts, 0)).to(device);
}

// The same where some are kept in 8 or 4 bits: fetched in pieces.
class StoredSpans final : public RowSource {
 public:
  StoredSpans(const KvCache& sharer, int64_t layer, const std::vector<FuseSpan>& spans)
      : layer_(layer), type_(sharer.layout().dtype), width_(sharer.layout().kv_heads * sharer.layout().head_dim) {
    for (const FuseSpan& span : spans)
      for (const Slice& s : sharer.slices(span.sharer_start, span.sharer_end)) {
        const Block& block = *sharer.segments()[s.segment].block;
        Piece piece{block.stored(), s.start, count_, count_ + s.end - s.start, {}};
        if (piece.stored == nullptr)
          for (int64_t part = 0; part < 2; ++part) piece.rows[part] = block.rows(layer, part, s.start, s.end);
        any_ = any_ || piece.stored != nullptr;
        count_ = piece.end;
        pieces_.push_back(std::move(piece));
      }
  }

  // Whether there are any; the others are better read where they lie.
  bool any() const { return any_ && (type_ == at::kFloat || type_ == at::kBFloat16); }
  int64_t count() const override { return count_; }

  void copy(int64_t part, int64_t start, int64_t end, at::ScalarType type, void* out) const override {
    auto* to = static_cast<std::byte*>(out);
    for (const Piece& piece : pieces_) {
      const int64_t from = std::max(start, piece.at), until = std::min(end, piece.end);
      if (from >= until) continue;
      std::byte* at = to + (from - start) * width_ * (type == at::kBFloat16 ? 2 : 4);
      if (piece.stored != nullptr) {
        piece.stored->copy(layer_, part, piece.start + from - piece.at, piece.start + until - piece.at, type, at);
      } else {
        plain(static_cast<const std::byte*>(piece.rows[part].const_data_ptr()) + (from - piece.at) * row_bytes(),
              (until - from) * width_, type, at);
      }
    }
  }

 private:
  struct Piece {
    const StoredRows* stored;
    int64_t start;    // in the block
    int64_t at, end;  // among all rows
    at::Tensor rows[2];
  };

  int64_t row_bytes() const { return width_ * (type_ == at::kBFloat16 ? 2 : 4); }

  void plain(const std::byte* from, int64_t count, at::ScalarType type, std::byte* to) const {
    if (type == type_) {
      std::copy_n(from, count * (type == at::kBFloat16 ? 2 : 4), to);
    } else if (type == at::kFloat) {
      kernels().widen(reinterpret_cast<const Bf16*>(from), count, reinterpret_cast<float*>(to));
    } else {
      kernels().narrow(reinterpret_cast<const float*>(from), count, reinterpret_cast<Bf16*>(to));
    }
  }

  int64_t layer_;
  at::ScalarType type_;
  int64_t width_, count_ = 0;
  bool any_ = false;
  std::vector<Piece> pieces_;
};

Projected project(const FuserLayer& layer, const KvCache& sharer, const std::vector<FuseSpan>& spans,
                  const Rows& onto) {
  const StoredSpans stored(sharer, layer.sharer_layer, spans);
  Projected made;
  const at::Device device = onto.key.device();
  if (device.is_cpu() && stored.any() && layer.projector->project_pieces(stored, onto, made)) return made;
  const Rows from{gather_sharer(sharer, layer.sharer_layer, 0, spans, device),
                  gather_sharer(sharer, layer.sharer_layer, 1, spans, device)};
  return layer.projector->project(from, onto, nullptr, 1.0);
}

// Writes `values` over the spans' rows of a draft that begins at `offset`, or adds their difference to `clean`.
void scatter(at::Tensor& rows, const std::vector<FuseSpan>& spans, int64_t offset, const at::Tensor& values,
             const at::Tensor* clean) {
  int64_t at = 0;
  for (const FuseSpan& span : spans) {
    const int64_t count = span.receiver_end - span.receiver_start;
    at::Tensor slot = rows.narrow(0, span.receiver_start - offset, count);
    at::Tensor part = values.narrow(0, at, count);
    if (clean) {
      at::Tensor before = clean->narrow(0, at, count).to(slot.scalar_type());
      slot.add_(part.to(slot.scalar_type()) - before);
    } else {
      slot.copy_(part);
    }
    at += count;
  }
}

LayerReport fuse_layer(const KvCache& receiver, const Contribution& contribution, const FuserLayer& layer, bool sum,
                       Draft& draft) {
  const int64_t target = layer.receiver_layer;
  const KvCache& sharer = *contribution.sharer;
  const Rows clean{receiver.rows(target, 0, draft.start, draft.end), receiver.rows(target, 1, draft.start, draft.end)};
  LayerReport report{.layer = target};
  if (!layer.projector->key_open() && !layer.projector->value_open()) return report;
  Rows& out = draft.layers[target];
  double total = 0;
  for (const auto& spans : group(contribution.spans, layer.projector->rowwise())) {
    const auto seen = [&](const at::Tensor& drafted, const at::Tensor& before) {
      return gather(sum || !drafted.defined() ? before : drafted, spans, draft.start);
    };
    const Rows onto{seen(out.key, clean.key), seen(out.value, clean.value)};
    const Projected made = project(layer, sharer, spans, onto);
    const double tokens = static_cast<double>(onto.key.size(0));
    total += tokens;
    const auto write = [&](at::Tensor& rows, const at::Tensor& before, const at::Tensor& values,
                           const at::Tensor& onto_rows) {
      if (!sum && spans.size() == 1 && values.size(0) == draft.end - draft.start) {
        rows = values;  // all of them at once
        return;
      }
      // Differences are summed in full precision and rounded once.
      const auto type = sum ? wide(before.scalar_type()) : before.scalar_type();
      if (!rows.defined()) rows = before.to(type, false, true);
      scatter(rows, spans, draft.start, values, sum ? &onto_rows : nullptr);
    };
    if (made.key.defined()) {
      report.key = true;
      report.key_weight += tokens * made.key_weight.mean().item<double>();
      write(out.key, clean.key, made.key, onto.key);
    }
    if (made.value.defined()) {
      report.value = true;
      report.value_weight += tokens * made.value_weight.mean().item<double>();
      write(out.value, clean.value, made.value, onto.value);
    }
  }
  if (total > 0) {
    report.key_weight /= total;
    report.value_weight /= total;
  }
  return report;
}

}  // namespace

std::vector<FuseReport> fuse(KvCache& receiver, const std::vector<Contribution>& contributions, bool parallel,
                             const CancelFlag& cancel) {
  at::NoGradGuard no_grad;
  Draft draft;
  draft.start = receiver.length();
  for (const Contribution& contribution : contributions) {
    check_contribution(receiver, contribution);
    for (const FuseSpan& span : contribution.spans) {
      if (span.receiver_end == span.receiver_start) continue;
      draft.start = std::min(draft.start, span.receiver_start);
      draft.end = std::max(draft.end, span.receiver_end);
    }
  }
  if (!receiver.layout().device.is_cpu()) {
    if (auto reports = cuda::fuse(receiver, contributions, parallel, cancel)) return std::move(*reports);
  }
  const bool sum = parallel && contributions.size() > 1;
  std::vector<FuseReport> reports;
  for (const Contribution& contribution : contributions) {
    const auto begin = std::chrono::steady_clock::now();
    FuseReport report;
    for (const FuseSpan& span : contribution.spans) report.positions += span.receiver_end - span.receiver_start;
    for (const FuserLayer& layer : contribution.fuser->layers) {
      check(cancel);
      if (report.positions > 0) report.layers.push_back(fuse_layer(receiver, contribution, layer, sum, draft));
    }
    report.ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    reports.push_back(std::move(report));
  }
  check(cancel);
  if (draft.layers.empty()) return reports;
  receiver.own(draft.start, draft.end);
  for (const auto& [layer, rows] : draft.layers) {
    if (rows.key.defined()) receiver.put(layer, 0, draft.start, rows.key);
    if (rows.value.defined()) receiver.put(layer, 1, draft.start, rows.value);
  }
  return reports;
}

}  // namespace c2c
