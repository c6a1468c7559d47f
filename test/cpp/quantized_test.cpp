// Rows in 8 and 4 bits: how far they are off, what they cost, how they are cut, kept in files and fused.
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <limits>

#include "cache/digest.h"
#include "cache/edit.h"
#include "cache/file.h"
#include "cache/quantized.h"
#include "check.h"

using namespace c2c;

namespace {

CacheLayout layout_of(at::ScalarType dtype, int64_t heads = 3, int64_t dim = 24) {
  return {2, heads, dim, 4096, dtype};
}

// Keys whose channels differ in size and offset, as real ones do.
std::shared_ptr<KvCache> random(const CacheLayout& layout, int64_t rows) {
  auto cache = std::make_shared<KvCache>(
      layout, rows, true,
      std::make_shared<Ropes>(Ropes{{std::vector<double>(static_cast<size_t>(layout.head_dim / 2), 0.5)},
                                    std::vector<int64_t>(static_cast<size_t>(layout.layers), 0)}));
  cache->reserve(rows);
  const int64_t width = layout.kv_heads * layout.head_dim;
  const at::Tensor sizes = at::linspace(0.01, 20, width).reshape({layout.kv_heads, layout.head_dim});
  for (int64_t layer = 0; layer < layout.layers; ++layer)
    for (int64_t part = 0; part < 2; ++part) {
      at::Tensor x = at::randn({rows, layout.kv_heads, layout.head_dim});
      if (part == 0) x = x * sizes + 3 * sizes;
      cache->put(layer, part, 0, x);
    }
  std::vector<uint32_t> tokens(static_cast<size_t>(rows)), positions = cache->next_positions(rows);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint32_t>(i * 7 % 31);
  cache->commit(tokens.data(), positions.data(), rows);
  return cache;
}

std::shared_ptr<KvCache> made(const KvCache& cache, Form form, QuantizeReport* report = nullptr) {
  QuantizeReport own;
  return quantized(cache, form, report != nullptr ? *report : own, nullptr);
}

const QuantizedRows& stored(const KvCache& cache, size_t segment = 0) {
  return dynamic_cast<const QuantizedRows&>(*cache.segments()[segment].block->stored());
}

bool same_rows(const KvCache& a, const KvCache& b, int64_t from = 0) {
  if (a.length() + from != b.length()) return false;
  for (int64_t layer = 0; layer < a.layout().layers; ++layer)
    for (int64_t part = 0; part < 2; ++part)
      if (!at::equal(a.rows(layer, part, 0, a.length()), b.rows(layer, part, from, b.length()))) return false;
  return true;
}

// No value is off by more than half of its own scale, and by what float itself rounds.
bool within_half_a_scale(const KvCache& cache, Form form) {
  const auto after = made(cache, form);
  const Codes& codes = stored(*after).codes();
  const int64_t rows = cache.length(), width = cache.layout().kv_heads * cache.layout().head_dim;
  for (int64_t layer = 0; layer < cache.layout().layers; ++layer)
    for (int64_t part = 0; part < 2; ++part) {
      const at::Tensor x = cache.rows(layer, part, 0, rows).to(at::kFloat).flatten(1).contiguous();
      const at::Tensor y = after->rows(layer, part, 0, rows).to(at::kFloat).flatten(1).contiguous();
      const at::Tensor scales = (part == 0 ? codes.key_scales : codes.value_scales).select(0, layer).to(at::kFloat);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < width; ++c) {
          const float scale =
              part == 0 ? scales[r / kCodeRows][1][c].item<float>() : scales[r][1][c / kCodeChannels].item<float>();
          const float before = x[r][c].item<float>(), now = y[r][c].item<float>();
          const float rounding = 4 * std::numeric_limits<float>::epsilon() * (std::abs(before) + scale);
          if (!(std::abs(before - now) <= scale / 2 + rounding)) {
            std::printf("part %ld row %ld channel %ld: %g became %g, scale %g\n", part, r, c, before, now, scale);
            return false;
          }
        }
    }
  return true;
}

void codec() {
  for (const Form form : {Form::kInt8, Form::kInt4}) {
    const std::string name = form == Form::kInt8 ? "int8" : "int4";
    run(name + ": no value is off by more than half a scale", [form] {
      return within_half_a_scale(*random(layout_of(at::kFloat), 71), form) &&
             within_half_a_scale(*random(layout_of(at::kFloat, 1, 4), 33), form);
    });
    run(name + ": equal values and zeros come back", [form] {
      auto cache = random(layout_of(at::kFloat), 40);
      cache->put(0, 0, 0, at::full({40, 3, 24}, 1.0 / 3));
      cache->put(0, 1, 0, at::zeros({40, 3, 24}));
      const auto after = made(*cache, form);
      return at::allclose(after->rows(0, 0, 0, 40), at::full({40, 3, 24}, 1.0 / 3), 4e-5) &&
             at::equal(after->rows(0, 1, 0, 40), at::zeros({40, 3, 24}));
    });
    run(name + ": bytes are those that are held, and the error is the measured one", [form] {
      const auto cache = random(layout_of(at::kFloat), 64);
      QuantizeReport report;
      const auto after = made(*cache, form, &report);
      const Codes& codes = stored(*after).codes();
      int64_t bytes = 0;
      for (const at::Tensor* t : {&codes.keys, &codes.key_scales, &codes.values, &codes.value_scales})
        bytes += static_cast<int64_t>(t->storage().nbytes());
      double off = 0, size = 0;
      for (int64_t layer = 0; layer < 2; ++layer) {
        const at::Tensor x = cache->rows(layer, 0, 0, 64).to(at::kDouble),
                         y = after->rows(layer, 0, 0, 64).to(at::kDouble);
        off += (x - y).square().sum().item<double>();
        size += x.square().sum().item<double>();
      }
      // Per value: 8 or 4 bits, and two bfloat16 for each 32 keys, or for 72 values in three groups.
      const int64_t row = form == Form::kInt8 ? 72 : 48, expected = 2 * (64 * row + 2 * 72 * 4 + 64 * row + 64 * 3 * 4);
      return report.bytes == bytes && bytes == expected && after->bytes() == bytes &&
             report.plain == 64 * cache->layout().row_bytes() &&
             std::abs(report.key.relative() - std::sqrt(off / size)) < 1e-9 && report.key.largest > 0;
    });
    run(name + ": keys by channel, values by row", [form] {
      // One huge channel spoils no other channel of keys; one huge row spoils no other row of values.
      auto cache = random(layout_of(at::kFloat, 1, 32), 32);
      at::Tensor x = at::randn({32, 1, 32});
      at::Tensor keys = x.clone(), values = x.clone();
      keys.select(2, 5).mul_(1000);
      values.select(0, 5).mul_(1000);
      cache->put(0, 0, 0, keys);
      cache->put(0, 1, 0, values);
      const auto after = made(*cache, form);
      const double bound = (form == Form::kInt8 ? 8.0 / 255 : 8.0 / 15) / 2 * 1.02;
      const auto off = [&](int64_t part, const at::Tensor& before) {
        return (after->rows(0, part, 0, 32) - before).abs();
      };
      at::Tensor key_error = off(0, keys), value_error = off(1, values);
      key_error.select(2, 5).zero_();
      value_error.select(0, 5).zero_();
      return key_error.max().item<double>() < bound && value_error.max().item<double>() < bound;
    });
    run(name + ": every kernel restores the same", [form] {
      for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        const auto after = made(*random(layout_of(dtype, 1, 44), 37), form);
        const Codes& codes = stored(*after).codes();
        const KernelList all = all_kernels();
        for (int64_t part = 0; part < 2; ++part) {
          const at::Tensor& code = part == 0 ? codes.keys : codes.values;
          const at::Tensor& scales = part == 0 ? codes.key_scales : codes.value_scales;
          std::vector<float> plain(44), other(44);
          Restore r;
          r.bits = form == Form::kInt8 ? 8 : 4;
          r.grouped = part == 1;
          r.codes = code.const_data_ptr<uint8_t>();
          r.lows = static_cast<const Bf16*>(scales.const_data_ptr());
          r.scales = r.lows + scales.size(3);
          r.count = 44;
          r.round = dtype == at::kBFloat16;
          r.out = plain.data();
          all.tables[0]->restore(r);
          for (size_t k = 1; k < all.count; ++k) {
            r.out = other.data();
            all.tables[k]->restore(r);
            for (size_t i = 0; i < 44; ++i)
              if (std::abs(plain[i] - other[i]) > (r.round ? 8e-3F : 1e-6F) * std::abs(plain[i]) + 1e-6F) return false;
          }
        }
      }
      return true;
    });
    run(name + ": rows of bfloat16 caches are bfloat16 in every type", [form] {
      const auto after = made(*random(layout_of(at::kBFloat16), 35), form);
      at::Tensor wide = at::zeros({35, 72}), narrow = at::zeros({35, 72}, at::kBFloat16);
      stored(*after).copy(1, 0, 0, 35, at::kFloat, wide.data_ptr());
      stored(*after).copy(1, 0, 0, 35, at::kBFloat16, narrow.data_ptr());
      return at::equal(wide, narrow.to(at::kFloat)) && at::equal(after->rows(1, 0, 0, 35).flatten(1), narrow);
    });
  }
  run("values that are not finite are refused", [] {
    for (const double bad : {std::numeric_limits<double>::infinity(), std::nan(""), -3.4e38}) {
      auto cache = random(layout_of(at::kFloat), 3);
      cache->put(1, 1, 1, at::full({1, 3, 24}, bad));
      if (!throws("OPTION_INVALID", [&] { made(*cache, Form::kInt8); })) return false;
    }
    return true;
  });
}

void life() {
  run("appended rows are plain and lie behind; other rows stay quantised", [] {
    const auto cache = random(layout_of(at::kFloat), 50), more = random(layout_of(at::kFloat), 70);
    const auto small = made(*cache, Form::kInt4), before = small->fork();
    small->append(*more, 0, 70);
    append_behind(*small, *more, 0, 3);
    const auto tail = small->slice(50, 120);
    return small->length() == 123 && same_rows(*before, *small->slice(0, 50)) && same_rows(*more, *tail) &&
           small->segments()[0].block->stored() != nullptr;
  });
  run("what is written over is copied first", [] {
    const auto small = made(*random(layout_of(at::kFloat), 100), Form::kInt8);
    const auto fork = small->fork();
    fork->own(10, 11);
    fork->put(0, 0, 10, at::full({1, 3, 24}, 5.0));
    return !same_rows(*fork, *small) && at::equal(fork->rows(0, 0, 10, 11), at::full({1, 3, 24}, 5.0)) &&
           at::equal(fork->rows(1, 1, 0, 100), small->rows(1, 1, 0, 100));
  });
  run("rows are moved as others are", [] {
    const auto cache = random(layout_of(at::kFloat), 40), small = made(*cache, Form::kInt8);
    erase(*small, 3, 9);
    shift(*small, 5);
    return small->length() == 34 && small->positions()[0] == 5 && small->positions()[33] == 38;
  });
  run("quantised again, quantised rows stay and new ones follow", [] {
    const auto small = made(*random(layout_of(at::kFloat), 40), Form::kInt4);
    small->append(*random(layout_of(at::kFloat), 33), 0, 33);
    const auto again = made(*small, Form::kInt8);
    return again->segments().size() == 2 && again->segments()[0].block == small->segments()[0].block &&
           stored(*again, 1).form() == Form::kInt8 && same_rows(*again->slice(0, 40), *small->slice(0, 40));
  });
}

// Saves into memory and loads again.
std::shared_ptr<KvCache> through_file(const KvCache& cache) {
  const int file = ::memfd_create("cache", MFD_CLOEXEC);
  const FilePlan plan = plan_file(cache);
  std::vector<std::byte> header(256, std::byte{'0'});
  const std::string checksum = write_file(plan, file, "memory", header, 17, nullptr);
  FileCache found;
  found.rows = cache.length();
  std::unordered_map<std::string, int64_t> begins;
  int64_t at = 256;
  for (const FileTensor& tensor : plan.tensors) {
    begins[tensor.name] = at;
    int64_t bytes = tensor.dtype == "U8" ? 1 : tensor.dtype == "BF16" ? 2 : 4;
    for (const int64_t size : tensor.shape) bytes *= size;
    at += bytes;
  }
  found.tokens = begins["tokens"];
  found.positions = begins["positions"];
  for (size_t i = 0; i < plan.parts.size(); ++i) {
    const std::string name = std::to_string(i) + ".";
    FileCache::Part part{plan.parts[i]};
    part.plain = begins[name + "rows"];
    part.keys = begins[name + "keys"];
    part.key_scales = begins[name + "key_scales"];
    part.values = begins[name + "values"];
    part.value_scales = begins[name + "value_scales"];
    found.parts.push_back(part);
  }
  const auto map = std::make_shared<Mapping>(file, "memory");
  ::close(file);
  if (!check_file(*map, 17, checksum, nullptr) || static_cast<int64_t>(map->size()) != at) return nullptr;
  return map_cache(map, "memory", found, cache.layout(), 4096, cache.ropes());
}

void files() {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const Form form : {Form::kPlain, Form::kInt8, Form::kInt4}) {
      run("a cache comes back from its file, however it is cut", [dtype, form] {
        auto cache = random(layout_of(dtype), 150);
        if (form != Form::kPlain) cache = made(*cache, form);
        cache->append(*random(layout_of(dtype), 70), 0, 70);
        for (const auto& [from, to] : {std::pair{0, 220}, {37, 200}, {5, 20}, {64, 150}, {150, 220}, {0, 0}}) {
          const auto part = cache->slice(from, to);
          const auto loaded = through_file(*part);
          if (loaded == nullptr || !same_rows(*part, *loaded) || loaded->tokens() != part->tokens() ||
              loaded->positions() != part->positions())
            return false;
          const auto again = through_file(*loaded);
          if (again == nullptr || !same_rows(*part, *again)) return false;
        }
        return true;
      });
    }
  run("any changed bit has another checksum", [] {
    std::vector<uint8_t> data(1000);
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 31);
    const uint64_t before = digest(data.data(), data.size());
    for (size_t i = 0; i < data.size() * 8; ++i) {
      data[i / 8] ^= static_cast<uint8_t>(1 << i % 8);
      if (digest(data.data(), data.size()) == before) return false;
      data[i / 8] ^= static_cast<uint8_t>(1 << i % 8);
    }
    for (size_t size = 0; size < data.size(); ++size)
      if (digest(data.data(), size) == before) return false;
    return true;
  });
}

}  // namespace

int main() {
  codec();
  life();
  files();
  return result();
}
