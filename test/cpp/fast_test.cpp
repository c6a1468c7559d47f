// The decoder's fast path against its plain one: random decoders of every kind. Prints "N passed, N failed".
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "check.h"
#include "decoders.h"

using namespace c2c;

namespace {

void compare(const Kind& kind) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const bool bf16 = type == at::kBFloat16;
    const std::string label = kind.name + (bf16 ? " bf16" : " float");
    const auto tensors = weights(kind.spec, type);
    auto wide = tensors;
    for (auto& [name, tensor] : wide) tensor = tensor.to(at::kFloat);
    const Decoder model(kind.spec, tensors, type), exact(kind.spec, wide, at::kFloat);
    const auto plain = [](const Decoder& d) {
      return story(d, [&](auto& batch) { return d.plain_forward(batch, nullptr); });
    };
    const auto fast = [](const Decoder& d) { return story(d, [&](auto& batch) { return d.forward(batch, nullptr); }); };
    const auto reference = plain(exact);
    const auto check = [&](const std::string& what, double error, double limit) {
      if (error >= limit) std::printf("%s%s: %g, at most %g\n", label.c_str(), what.c_str(), error, limit);
      return error < limit;
    };
    run(label, [&] {
      if (!bf16) return check("", worst(error_of, fast(model), reference), 2e-5);
      // Both round: the fast path may be no further from float32 than the plain one.
      return check("", worst(spread_of, fast(model), reference), 1.1 * worst(spread_of, plain(model), reference));
    });
    for (const auto& [quantize, limit] : {std::pair{Quantize::kInt8, 0.12}, {Quantize::kInt4, 0.9}}) {
      const std::string what = quantize == Quantize::kInt8 ? " int8" : " int4";
      run(label + what, [&, quantize = quantize, limit = limit] {
        const Decoder small(kind.spec, tensors, type, quantize);
        return check(what, average(spread_of, fast(small), reference), limit);
      });
    }
  }
}

// A step behind many rows is cut among threads by what it sees; so are two steps on four threads, of which one sees a
// single row.
void long_sights(const Kind& kind) {
  const Decoder model(kind.spec, weights(kind.spec, at::kFloat), at::kFloat);
  const auto tell = [&](const Forward& forward) {
    KvCache long_one(model.layout(), 8, true), short_one(model.layout(), 8, true);
    std::vector<at::Tensor> seen;
    const auto go = [&](std::vector<Request> batch) {
      for (const at::Tensor& t : forward(batch))
        if (t.defined()) seen.push_back(t.clone());
    };
    go({request(long_one, 0, 301, Logits::kNone)});
    go({request(long_one, 301, 302, Logits::kLast)});
    go({request(long_one, 302, 303, Logits::kLast), request(short_one, 0, 1, Logits::kLast)});
    go({request(long_one, 302, 303, Logits::kLast, true)});
    return seen;
  };
  for (const int threads : {1, 2, 3, 4, 7}) {
    run(kind.name + ", 300 rows, threads: " + std::to_string(threads), [&] {
      const int before = at::get_num_threads();
      at::set_num_threads(threads);
      const auto fast = tell([&](auto& batch) { return model.forward(batch, nullptr); });
      at::set_num_threads(before);
      const auto plain = tell([&](auto& batch) { return model.plain_forward(batch, nullptr); });
      return fast.size() == 4 && worst(error_of, fast, plain) < 2e-5;
    });
  }
}

void changes() {
  run("weights that were changed are packed anew", [] {
    auto tensors = weights(base(), at::kFloat);
    const Decoder model(base(), tensors, at::kFloat);
    const auto forward = [&] {
      KvCache cache(model.layout(), 8, true);
      std::vector<Request> batch{request(cache, 0, 5, Logits::kAll)};
      return model.forward(batch, nullptr)[0].clone();
    };
    const at::Tensor before = forward();
    tensors.at("layers.1.mlp.up_proj.weight").mul_(2);
    KvCache cache(model.layout(), 8, true);
    std::vector<Request> batch{request(cache, 0, 5, Logits::kAll)};
    const at::Tensor plain = model.plain_forward(batch, nullptr)[0];
    return error_of(forward(), plain) < 1e-5 && error_of(before, plain) > 1e-3;
  });
  run("weights that require grad take the plain path", [] {
    auto tensors = weights(base(), at::kFloat);
    tensors.at("layers.1.self_attn.q_proj.weight").requires_grad_(true);
    const Decoder model(base(), tensors, at::kFloat);
    KvCache cache(model.layout(), 8, true);
    std::vector<Request> batch{request(cache, 0, 5, Logits::kAll)};
    return model.forward(batch, nullptr)[0].requires_grad() && cache.length() == 5;
  });
}

}  // namespace

int main() {
  at::manual_seed(1);
  for (const Kind& kind : kinds()) {
    compare(kind);
    long_sights(kind);
  }
  changes();
  return result();
}
