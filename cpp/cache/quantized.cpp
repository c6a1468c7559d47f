#include "cache/quantized.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace c2c {

namespace {

int64_t levels(Form form) { return form == Form::kInt8 ? 255 : 15; }

// The largest bfloat16 that is not above x.
Bf16 rounded_down(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const bool away = (bits & 0xffff) != 0 && (bits >> 31) != 0;
  return {static_cast<uint16_t>((bits >> 16) + (away ? 1 : 0))};
}
// The smallest that is not below x, for x ≥ 0.
Bf16 rounded_up(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return {static_cast<uint16_t>((bits >> 16) + ((bits & 0xffff) != 0 ? 1 : 0))};
}
float wide(Bf16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }

// Low and scale of what lies between two values.
struct Scale {
  Bf16 low, scale;
  Scale(float least, float most, int64_t levels) : low(rounded_down(least)) {
    scale = rounded_up((most - wide(low)) / static_cast<float>(levels));
    if (!std::isfinite(least) || !std::isfinite(most) || !std::isfinite(wide(low)) ||
        !std::isfinite(wide(scale) * static_cast<float>(levels)))
      option_invalid("quantize", "a row holds values that are not finite, or too large");
  }
  uint8_t code(float x, int64_t levels) const {
    const float step = wide(scale);
    if (step == 0) return 0;
    const auto place = static_cast<int64_t>((x - wide(low)) / step + 0.5F);
    return static_cast<uint8_t>(std::min(place, levels));
  }
};

void put_code(Form form, uint8_t* row, int64_t channel, uint8_t code) {
  if (form == Form::kInt8) {
    row[channel] = code;
    return;
  }
  const int64_t group = channel / kCodeChannels, at = channel % kCodeChannels, half = kCodeChannels / 2;
  uint8_t& byte = row[group * half + at % half];
  byte = static_cast<uint8_t>(at < half ? (byte & 0xf0) | code : (byte & 0x0f) | (code << 4));
}

// The least and the most of each of `count` numbers in `rows` rows.
struct Ranges {
  std::vector<float> least, most;
  explicit Ranges(int64_t count) : least(static_cast<size_t>(count)), most(least) {}

  void find(const float* x, int64_t rows, int64_t count, int64_t stride) {
    std::copy_n(x, count, least.begin());
    std::copy_n(x, count, most.begin());
    float odd = 0;  // x − x is 0 for finite x alone
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < count; ++i) {
        const float value = x[r * stride + i];
        odd += value - value;
        least[static_cast<size_t>(i)] = std::min(least[static_cast<size_t>(i)], value);
        most[static_cast<size_t>(i)] = std::max(most[static_cast<size_t>(i)], value);
      }
    if (!(odd == 0)) least[0] = std::numeric_limits<float>::quiet_NaN();
  }
};

// One layer's keys: `codes` and `scales` at its first row and group.
void encode_keys(Form form, const float* x, int64_t rows, int64_t width, uint8_t* codes, Bf16* scales) {
  const int64_t bytes = QuantizedRows::code_bytes(form, width);
  Ranges ranges(width);
  std::vector<Scale> made;
  for (int64_t first = 0; first < rows; first += kCodeRows, scales += 2 * width) {
    const int64_t count = std::min(kCodeRows, rows - first);
    ranges.find(x + first * width, count, width, width);
    made.clear();
    for (int64_t c = 0; c < width; ++c) {
      made.emplace_back(ranges.least[static_cast<size_t>(c)], ranges.most[static_cast<size_t>(c)], levels(form));
      scales[c] = made.back().low;
      scales[width + c] = made.back().scale;
    }
    for (int64_t r = first; r < first + count; ++r)
      for (int64_t c = 0; c < width; ++c)
        put_code(form, codes + r * bytes, c, made[static_cast<size_t>(c)].code(x[r * width + c], levels(form)));
  }
}

std::pair<float, float> range(const float* x, int64_t count) {
  float least = x[0], most = x[0], odd = 0;
  for (int64_t i = 0; i < count; ++i) {
    odd += x[i] - x[i];
    least = std::min(least, x[i]);
    most = std::max(most, x[i]);
  }
  return {odd == 0 ? least : std::numeric_limits<float>::quiet_NaN(), most};
}

void encode_values(Form form, const float* x, int64_t rows, int64_t width, uint8_t* codes, Bf16* scales) {
  const int64_t bytes = QuantizedRows::code_bytes(form, width), groups = (width + kCodeChannels - 1) / kCodeChannels;
  for (int64_t r = 0; r < rows; ++r, x += width, codes += bytes, scales += 2 * groups)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = g * kCodeChannels, last = std::min(width, first + kCodeChannels);
      const auto [least, most] = range(x + first, last - first);
      const Scale scale(least, most, levels(form));
      scales[g] = scale.low;
      scales[groups + g] = scale.scale;
      for (int64_t c = first; c < last; ++c) put_code(form, codes, c, scale.code(x[c], levels(form)));
    }
}

RowError difference(const float* before, const float* after, int64_t count) {
  RowError error;
  for (int64_t i = 0; i < count; ++i) {
    const double off = static_cast<double>(after[i]) - static_cast<double>(before[i]);
    error.difference += off * off;
    error.magnitude += static_cast<double>(before[i]) * static_cast<double>(before[i]);
    error.largest = std::max(error.largest, std::abs(off));
  }
  return error;
}

std::shared_ptr<const QuantizedRows> encode(const KvCache& cache, int64_t start, int64_t rows, Form form,
                                            QuantizeReport& report, const CancelFlag& cancel) {
  const CacheLayout& layout = cache.layout();
  const int64_t width = layout.kv_heads * layout.head_dim;
  const auto shapes = QuantizedRows::shapes(layout, form, rows);
  const auto bytes = at::TensorOptions().dtype(at::kByte), halves = at::TensorOptions().dtype(at::kBFloat16);
  // Zeros: half bytes that stand for nothing are written to files too.
  const Codes codes{at::zeros(shapes[0], bytes), at::empty(shapes[1], halves), at::zeros(shapes[2], bytes),
                    at::empty(shapes[3], halves)};
  auto made = std::make_shared<QuantizedRows>(layout, form, rows, codes);
  std::vector<RowError> errors(static_cast<size_t>(2 * layout.layers));
  at::parallel_for(0, 2 * layout.layers, 1, [&](int64_t first, int64_t last) {
    const at::NoGradGuard no_grad;
    for (int64_t i = first; i < last; ++i) {
      check(cancel);
      const int64_t layer = i / 2, part = i % 2;
      const at::Tensor before = cache.rows(layer, part, start, start + rows).to(at::kCPU, at::kFloat).contiguous();
      const at::Tensor into = (part == 0 ? codes.keys : codes.values).select(0, layer);
      const at::Tensor scales = (part == 0 ? codes.key_scales : codes.value_scales).select(0, layer);
      (part == 0 ? encode_keys : encode_values)(form, before.const_data_ptr<float>(), rows, width,
                                                into.data_ptr<uint8_t>(), static_cast<Bf16*>(scales.data_ptr()));
      const at::Tensor after = at::empty_like(before);
      made->copy(layer, part, 0, rows, at::kFloat, after.data_ptr());
      errors[static_cast<size_t>(i)] =
          difference(before.const_data_ptr<float>(), after.const_data_ptr<float>(), rows * width);
    }
  });
  for (size_t i = 0; i < errors.size(); ++i) (i % 2 == 0 ? report.key : report.value).add(errors[i]);
  return made;
}

}  // namespace

double RowError::relative() const { return magnitude > 0 ? std::sqrt(difference / magnitude) : 0; }

void RowError::add(const RowError& other) {
  difference += other.difference;
  magnitude += other.magnitude;
  largest = std::max(largest, other.largest);
}

int64_t QuantizedRows::code_bytes(Form form, int64_t width) {
  return form == Form::kInt8 ? width : round_up(width, kCodeChannels) / 2;
}

std::vector<std::vector<int64_t>> QuantizedRows::shapes(const CacheLayout& layout, Form form, int64_t rows) {
  const int64_t width = layout.kv_heads * layout.head_dim, bytes = code_bytes(form, width);
  return {{layout.layers, rows, bytes},
          {layout.layers, (rows + kCodeRows - 1) / kCodeRows, 2, width},
          {layout.layers, rows, bytes},
          {layout.layers, rows, 2, (width + kCodeChannels - 1) / kCodeChannels}};
}

QuantizedRows::QuantizedRows(const CacheLayout& layout, Form form, int64_t rows, Codes codes)
    : layout_(layout), form_(form), rows_(rows), width_(layout.kv_heads * layout.head_dim), codes_(std::move(codes)) {}

int64_t QuantizedRows::bytes() const {
  return static_cast<int64_t>(codes_.keys.nbytes() + codes_.key_scales.nbytes() + codes_.values.nbytes() +
                              codes_.value_scales.nbytes());
}

void QuantizedRows::copy(int64_t layer, int64_t part, int64_t start, int64_t end, at::ScalarType type,
                         void* out) const {
  const at::Tensor& codes = part == 0 ? codes_.keys : codes_.values;
  const at::Tensor& scales = part == 0 ? codes_.key_scales : codes_.value_scales;
  const int64_t bytes = codes.size(2), per_row = scales.size(3), pairs = scales.size(1);
  const auto* code = codes.const_data_ptr<uint8_t>() + (layer * rows_ + start) * bytes;
  const auto* scale = static_cast<const Bf16*>(scales.const_data_ptr()) + layer * pairs * 2 * per_row;
  const int64_t item = type == at::kBFloat16 ? 2 : 4;
  auto* to = static_cast<std::byte*>(out);
  Restore restore;
  restore.bits = form_ == Form::kInt8 ? 8 : 4;
  restore.grouped = part == 1;
  restore.count = width_;
  restore.bf16 = type == at::kBFloat16;
  restore.round = layout_.dtype == at::kBFloat16;
  for (int64_t r = start; r < end; ++r, code += bytes, to += width_ * item) {
    restore.codes = code;
    restore.lows = scale + (part == 0 ? r / kCodeRows : r) * 2 * per_row;
    restore.scales = restore.lows + per_row;
    restore.out = to;
    kernels().restore(restore);
  }
}

at::Tensor QuantizedRows::rows(int64_t layer, int64_t part, int64_t start, int64_t end) const {
  at::Tensor made = at::empty({end - start, layout_.kv_heads, layout_.head_dim}, layout_.dtype);
  copy(layer, part, start, end, layout_.dtype, made.data_ptr());
  return made.to(layout_.device);
}

std::shared_ptr<KvCache> quantized(const KvCache& cache, Form form, QuantizeReport& report, const CancelFlag& cancel) {
  std::vector<Segment> segments;
  int64_t row = 0, from = 0;  // the next row, and the first plain one before it
  const auto close = [&] {
    if (row > from) {
      auto block = std::make_shared<Block>(encode(cache, from, row - from, form, report, cancel));
      segments.push_back({std::move(block), 0, row - from});
    }
  };
  for (const Segment& s : cache.segments()) {
    if (s.rows == 0) continue;
    if (s.block->stored() != nullptr) {
      close();
      segments.push_back(s);
      from = row + s.rows;
    }
    row += s.rows;
  }
  close();
  std::vector<const Block*> seen;
  for (const Segment& s : segments) {
    if (std::find(seen.begin(), seen.end(), s.block.get()) != seen.end()) continue;
    seen.push_back(s.block.get());
    report.bytes += s.block->bytes();
  }
  report.plain += cache.length() * cache.layout().row_bytes();
  auto made =
      std::make_shared<KvCache>(cache.layout(), std::move(segments), cache.tokens(), cache.positions(), cache.ropes());
  if (!cache.grows()) made->fix(cache.capacity());
  made->set_policy(cache.policy());
  return made;
}

}  // namespace c2c
