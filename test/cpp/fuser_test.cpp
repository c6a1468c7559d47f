// Checks projectors against recorded cases (unit.json, unit.safetensors of the folder in argv[1]) and fuse() on a small
// random cache. Prints "N passed, N failed".
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>

#include "check.h"
#include "fuser/parts.h"
#include "json.h"

using namespace c2c;

namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Float tensors of a safetensors file by name.
Tensors read_tensors(const std::string& path) {
  std::string bytes = read_file(path);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  Tensors tensors;
  for (const auto& [name, entry] : parse_json(bytes.substr(8, length)).fields) {
    if (name == "__metadata__") continue;
    if (entry.at("dtype").text != "F32") throw std::runtime_error(name + " is not F32");
    std::vector<int64_t> shape;
    for (const Json& size : entry.at("shape").items) shape.push_back(static_cast<int64_t>(size.number));
    const auto start = static_cast<size_t>(entry.at("data_offsets").items[0].number);
    tensors[name] =
        at::from_blob(bytes.data() + 8 + length + start, shape, at::TensorOptions().dtype(at::kFloat)).clone();
  }
  return tensors;
}

Options read_options(const Json& kwargs) {
  Options options;
  for (const auto& [name, value] : kwargs.fields) {
    if (value.kind == Json::kBool) options[name] = value.number != 0;
    if (value.kind == Json::kNumber) options[name] = value.number;
    if (value.kind == Json::kText) options[name] = value.text;
  }
  return options;
}

Tensors with_prefix(const Tensors& all, const std::string& prefix) {
  Tensors found;
  for (const auto& [name, tensor] : all)
    if (name.starts_with(prefix)) found[name.substr(prefix.size())] = tensor;
  return found;
}

void recorded_case(const Json& test, const Tensors& all) {
  const std::string name = test.at("name").text;
  run(name, [&] {
    auto size = [&](const char* field) { return static_cast<int64_t>(test.at("shape").at(field).number); };
    const HeadShape receiver{size("Ht"), size("Dt")}, sharer{size("Hs"), size("Ds")};
    auto projector = make_projector(test.at("cls").text, read_options(test.at("kwargs")), receiver, sharer,
                                    with_prefix(all, name + "/w/"), at::kFloat);
    const bool noisy = test.at("train").number != 0 && test.at("n_noise").number > 0;
    const double temperature = noisy ? test.at("temperature").number : 1.0;
    double worst = 0, bound = 0;
    for (int64_t b = 0; b < size("B"); ++b) {
      auto rows = [&](const char* key) { return all.at(name + "/" + key).select(0, b).transpose(0, 1); };
      const Rows from{rows("sk"), rows("sv")}, onto{rows("tk"), rows("tv")};
      Noise noise;
      if (noisy) noise = {rows("noise0").squeeze(-1), rows("noise1").squeeze(-1)};
      const Projected made = projector->project(from, onto, noisy ? &noise : nullptr, temperature);
      auto compare = [&](const at::Tensor& got, const at::Tensor& kept, const at::Tensor& want) {
        worst = worse(worst, ((got.defined() ? got : kept) - want).abs().max().item<double>());
        bound = std::max(bound, 1e-4 + 1e-5 * want.abs().max().item<double>());
      };
      compare(made.key, onto.key, rows("out_k"));
      compare(made.value, onto.value, rows("out_v"));
    }
    if (!(worst <= bound)) std::printf("%s: difference %g above %g\n", name.c_str(), worst, bound);
    return worst <= bound;
  });
}

Tensors tower_weights(HeadShape receiver, HeadShape sharer, double key_logit, double value_logit) {
  Tensors weights;
  for (const std::string part : {"key", "value"}) {
    auto add = [&](const std::string& name, std::vector<int64_t> shape) {
      weights[part + name] = at::randn(shape) * 0.3;
    };
    auto block = [&](const std::string& name) {
      add(name + ".blocks.0.norm.weight", {8});
      add(name + ".blocks.0.w1.weight", {8, 8});
      add(name + ".blocks.0.w2.weight", {8, 8});
    };
    auto linear = [&](const std::string& name, int64_t out, int64_t in) {
      add(name + ".weight", {out, in});
      add(name + ".bias", {out});
    };
    linear("_in", 8, sharer.width() + receiver.width());
    for (const char* name : {"_mlp1", "_scalar_mlp2", "_proj_mlp2"}) block(name);
    linear("_scalar_head", receiver.kv_heads, 8);
    linear("_proj_out", receiver.width(), 8);
    weights[part + "_gate_logit"] = at::zeros({}) + (part == "key" ? key_logit : value_logit);
  }
  weights["gate_temperature"] = at::zeros({}) + 1;
  return weights;
}

const Options kSmall{{"hidden_dim", 8.0}, {"intermediate_dim", 8.0}};
const HeadShape kReceiver{2, 4}, kSharer{1, 6};

std::shared_ptr<Fuser> small_fuser(double key_logit, double value_logit, at::ScalarType dtype = at::kFloat) {
  auto fuser = std::make_shared<Fuser>(Fuser{kReceiver, kSharer, dtype, {}});
  for (int64_t layer : {0, 2}) {
    auto weights = tower_weights(kReceiver, kSharer, key_logit, value_logit);
    fuser->layers.push_back({layer, 1, make_projector("C2CProjector", kSmall, kReceiver, kSharer, weights, dtype)});
  }
  return fuser;
}

std::shared_ptr<KvCache> random_cache(HeadShape heads, int64_t layers, int64_t length,
                                      at::ScalarType dtype = at::kFloat) {
  auto cache = std::make_shared<KvCache>(CacheLayout{layers, heads.kv_heads, heads.head_dim, 64, dtype}, length, true);
  const std::vector<uint32_t> ids(static_cast<size_t>(length), 1);
  cache->reserve(length);
  for (int64_t layer = 0; layer < layers; ++layer)
    for (int64_t part : {0, 1})
      cache->rows(layer, part, 0, length).copy_(at::randn({length, heads.kv_heads, heads.head_dim}));
  cache->commit(ids.data(), ids.data(), length);
  return cache;
}

Rows copy_rows(const KvCache& cache, int64_t layer, int64_t start, int64_t end) {
  return {cache.rows(layer, 0, start, end).clone(), cache.rows(layer, 1, start, end).clone()};
}

bool same(const at::Tensor& a, const at::Tensor& b) { return at::allclose(a, b, 1e-5, 1e-5); }

void fuse_cases() {
  auto first = small_fuser(1, 1), second = small_fuser(1, -1);
  auto one = random_cache(kSharer, 2, 9), two = random_cache(kSharer, 2, 9);
  const std::vector<FuseSpan> spans{{1, 4, 2, 5}, {5, 6, 0, 1}};
  for (bool parallel : {false, true}) {
    run(parallel ? "fuse parallel" : "fuse sequential", [&] {
      auto cache = random_cache(kReceiver, 3, 8);
      auto before = cache->fork();
      const auto reports = fuse(*cache, {{first, one, spans}, {second, two, spans}}, parallel, nullptr);
      bool ok = reports.size() == 2 && reports[0].positions == 4 && reports[0].layers.size() == 2;
      ok = ok && reports[1].layers[0].key && !reports[1].layers[0].value && reports[1].layers[0].value_weight == 0;
      ok = ok && reports[0].layers[1].layer == 2 && reports[0].layers[1].value_weight > 0;
      for (size_t i : {0, 1}) {
        const int64_t layer = first->layers[i].receiver_layer;
        for (const FuseSpan& s : spans) {
          const Rows clean = copy_rows(*before, layer, s.receiver_start, s.receiver_end);
          const Rows from{one->rows(1, 0, s.sharer_start, s.sharer_end), one->rows(1, 1, s.sharer_start, s.sharer_end)};
          const Rows next{two->rows(1, 0, s.sharer_start, s.sharer_end), two->rows(1, 1, s.sharer_start, s.sharer_end)};
          const Projected a = first->layers[i].projector->project(from, clean, nullptr, 1);
          const Projected b =
              second->layers[i].projector->project(next, parallel ? clean : Rows{a.key, a.value}, nullptr, 1);
          const at::Tensor key = parallel ? a.key + b.key - clean.key : b.key;
          const Rows got = copy_rows(*cache, layer, s.receiver_start, s.receiver_end);
          ok = ok && same(got.key, key) && same(got.value, a.value) && !same(got.key, clean.key);
        }
        ok = ok && at::equal(cache->rows(layer, 0, 4, 5), before->rows(layer, 0, 4, 5));
        ok = ok && at::equal(cache->rows(layer, 1, 6, 8), before->rows(layer, 1, 6, 8));
      }
      return ok && at::equal(cache->rows(1, 0, 0, 8), before->rows(1, 0, 0, 8));
    });
  }
  run("a layer fused twice", [&] {
    const int64_t rows = 90;
    auto cache = random_cache(kReceiver, 3, rows), source = random_cache(kSharer, 2, rows);
    auto twice = std::make_shared<Fuser>(Fuser{kReceiver, kSharer, at::kFloat, {}});
    for (int64_t layer : {0, 0, 1, 2})
      twice->layers.push_back({layer, 1,
                               make_projector("C2CProjector", kSmall, kReceiver, kSharer,
                                              tower_weights(kReceiver, kSharer, 1, layer == 1 ? -1 : 1), at::kFloat)});
    std::vector<Rows> expected;
    for (int64_t layer : {0, 1, 2}) expected.push_back(copy_rows(*cache, layer, 0, rows));
    const Rows from = copy_rows(*source, 1, 0, rows);
    for (const FuserLayer& l : twice->layers) {
      Rows& onto = expected[static_cast<size_t>(l.receiver_layer)];
      const Projected made = l.projector->project(from, onto, nullptr, 1);
      onto = {made.key, made.value.defined() ? made.value : onto.value};
    }
    const auto reports = fuse(*cache, {{twice, source, {{0, rows, 0, rows}}}}, false, nullptr);
    bool ok = reports[0].layers.size() == 4 && !reports[0].layers[2].value && reports[0].layers[3].value_weight > 0;
    for (int64_t layer : {0, 1, 2}) {
      const Rows got = copy_rows(*cache, layer, 0, rows), &want = expected[static_cast<size_t>(layer)];
      ok = ok && at::equal(got.key, want.key) && at::equal(got.value, want.value);
    }
    return ok;
  });
  run("closed gates and cancel leave the cache", [&] {
    auto cache = random_cache(kReceiver, 3, 8);
    const Rows before = copy_rows(*cache, 2, 0, 8);
    const auto reports = fuse(*cache, {{small_fuser(0, -2), one, spans}}, false, nullptr);
    bool ok = !reports[0].layers[0].key && !reports[0].layers[0].value;
    auto cancel = std::make_shared<std::atomic<bool>>(true);
    bool cancelled = false;
    try {
      fuse(*cache, {{first, one, spans}}, false, cancel);
    } catch (const Cancelled&) {
      cancelled = true;
    }
    return ok && cancelled && at::equal(cache->rows(2, 0, 0, 8), before.key) &&
           at::equal(cache->rows(2, 1, 0, 8), before.value);
  });
  run("bfloat16 rounds once", [&] {
    auto cache = random_cache(kReceiver, 3, 8, at::kBFloat16);
    auto source = random_cache(kSharer, 2, 9, at::kBFloat16);
    const Rows before = copy_rows(*cache, 0, 1, 4);
    auto fuser = small_fuser(1, 1, at::kBFloat16);
    const std::vector<FuseSpan> span{{1, 4, 2, 5}};
    fuse(*cache, {{fuser, source, span}}, false, nullptr);
    const auto dtype = cache->rows(0, 0, 1, 4).scalar_type();
    return dtype == at::kBFloat16 && !at::equal(cache->rows(0, 0, 1, 4), before.key);
  });
  run("wrong spans, shapes and layers", [&] {
    auto cache = random_cache(kReceiver, 3, 8);
    auto with = [&](std::vector<FuseSpan> bad) {
      return [&, bad] { fuse(*cache, {{first, one, bad}}, false, nullptr); };
    };
    bool ok = throws("OPTION_INVALID", with({{1, 4, 2, 6}})) && throws("OPTION_INVALID", with({{7, 9, 0, 2}}));
    ok = ok && throws("OPTION_INVALID", with({{0, 2, 8, 10}})) &&
         throws("OPTION_INVALID", with({{0, 3, 0, 3}, {2, 4, 4, 6}}));
    auto narrow = random_cache(kReceiver, 2, 8);
    ok = ok && throws("SHAPE_MISMATCH", [&] { fuse(*narrow, {{first, one, spans}}, false, nullptr); });
    return ok && throws("SHAPE_MISMATCH", [&] { fuse(*cache, {{first, cache, spans}}, false, nullptr); });
  });
}

void weight_errors() {
  auto make = [](Tensors weights) { make_projector("C2CProjector", kSmall, kReceiver, kSharer, weights, at::kFloat); };
  const Tensors good = tower_weights(kReceiver, kSharer, 1, 1);
  run("missing tensor", [&] {
    Tensors weights = good;
    weights.erase("value_proj_out.bias");
    return throws("SHAPE_MISMATCH", [&] { make(weights); });
  });
  run("extra tensor", [&] {
    Tensors weights = good;
    weights["other"] = at::zeros({3});
    return throws("SHAPE_MISMATCH", [&] { make(weights); });
  });
  run("tensor of another shape", [&] {
    Tensors weights = good;
    weights["key_in.bias"] = at::zeros({9});
    return throws("SHAPE_MISMATCH", [&] { make(weights); });
  });
  run("unknown kind",
      [&] { return throws("UNSUPPORTED", [&] { make_projector("Other", {}, kReceiver, kSharer, {}, at::kFloat); }); });
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : "test/goldens";
  run("recorded cases", [&] {
    const Json unit = parse_json(read_file(folder + "/unit.json"));
    const Tensors all = read_tensors(folder + "/unit.safetensors");
    for (const Json& test : unit.at("tests").items) recorded_case(test, all);
    for (const Json& test : unit.at("reference_raises").items)
      run(test.at("name").text, [&] {
        return throws("UNSUPPORTED", [&] {
          make_projector("AllInOneProjector", read_options(test.at("kwargs")), {3, 4}, {2, 8}, {}, at::kFloat);
        });
      });
    return !unit.at("tests").items.empty();
  });
  weight_errors();
  fuse_cases();
  return result();
}
