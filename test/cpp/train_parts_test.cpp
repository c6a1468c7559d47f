// What training is made of: the optimiser against its formula, ragged attention against one call for each sequence,
// losses, recomputation, random streams, states. Prints "N passed, N failed".
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>

#include "check.h"
#include "model/blocks.h"
#include "train/adamw.h"
#include "train/fuser_trainer.h"
#include "train/loss.h"
#include "train/model_trainer.h"
#include "train/ragged.h"
#include "train/random.h"
#include "train/recompute.h"
#include "train/shares.h"
#include "train/state.h"
#include "trained_decoder.h"

using namespace c2c;

namespace {

void parts() {
  run("AdamW is its formula", [] {
    Parameters parameters({{"bias", {2}, false}, {"matrix", {2, 2}}, {"frozen", {1}, true, false}});
    AdamW optimizer(parameters, {0.9, 0.99, 1e-8, 0.1});
    std::vector<double> value{1, -2, 3, -4, 5, 6}, mean(6), variance(6);
    const auto put = [&](const char* name, std::vector<float> x) {
      const at::NoGradGuard no_grad;
      const at::Tensor leaf = parameters.leaf(name);
      leaf.copy_(at::tensor(x).view(leaf.sizes()));
    };
    put("matrix", {1, -2, 3, -4});
    put("bias", {5, 6});
    put("frozen", {9});
    for (int step = 1; step <= 3; ++step) {
      std::vector<double> gradient;
      for (int i = 0; i < 6; ++i) gradient.push_back(0.1 * (i - 2) * step);
      const auto give = [&](const char* name, int first, int size) {
        at::Tensor out = parameters.part(parameters.gradients(), name).flatten();
        for (int i = 0; i < size; ++i) out[i].fill_(gradient[size_t(first + i)]);
      };
      give("matrix", 0, 4);
      give("bias", 4, 2);
      optimizer.step(parameters, 0.05);
      for (size_t i = 0; i < 6; ++i) {
        if (i < 4) value[i] *= 1 - 0.05 * 0.1;
        mean[i] = 0.9 * mean[i] + 0.1 * gradient[i];
        variance[i] = 0.99 * variance[i] + 0.01 * gradient[i] * gradient[i];
        const double m = mean[i] / (1 - std::pow(0.9, step)), v = variance[i] / (1 - std::pow(0.99, step));
        value[i] -= 0.05 * m / (std::sqrt(v) + 1e-8);
      }
    }
    const at::Tensor own = at::cat({parameters.leaf("matrix").flatten(), parameters.leaf("bias")}).to(at::kDouble);
    return at::allclose(own.detach(), at::tensor(value), 1e-5, 1e-6) &&
           parameters.leaf("frozen")[0].item<double>() == 9;
  });
  run("clipping scales to the limit", [] {
    Parameters parameters({{"a", {2}}, {"b", {1}}, {"frozen", {1}, true, false}});
    parameters.part(parameters.gradients(), "a").fill_(2);
    parameters.part(parameters.gradients(), "b").fill_(1);
    parameters.part(parameters.gradients(), "frozen").fill_(100);
    const double norm = parameters.clip(1.5);
    return std::abs(norm - 3) < 1e-6 && std::abs(parameters.clip(0) - 1.5) < 1e-5;
  });
  run("ragged attention is one call for each sequence", [] {
    const DecoderSpec spec = small_spec(true);
    auto random = at::make_generator<at::CPUGeneratorImpl>(8);
    const std::vector<int64_t> lengths{3, 9, 1, 4, 4, 12}, pasts{0, 2, 5, 0, 0, 0};
    std::vector<SequenceRows> sequences;
    int64_t queries = 0, keys = 0;
    for (size_t s = 0; s < lengths.size(); ++s) {
      SequenceRows rows;
      for (int64_t i = 0; i < lengths[s] + pasts[s]; ++i) {
        rows.keys.push_back(keys++);
        rows.positions.push_back(i + (i > 2 ? 1 : 0));
        if (i >= pasts[s]) rows.queries.push_back(queries++);
      }
      sequences.push_back(rows);
    }
    const auto draw = [&](int64_t rows, int64_t heads) {
      return at::randn({rows, heads, spec.head_dim}, random, at::kDouble);
    };
    const at::Tensor q = draw(queries, spec.heads), k = draw(keys, spec.kv_heads), v = draw(keys, spec.kv_heads);
    const RaggedAttention ragged(sequences, queries);
    bool good = true;
    for (const size_t layer : {size_t{0}, size_t{1}}) {
      const at::Tensor all = ragged(spec, layer, q, k, v);
      for (const auto& s : sequences) {
        const auto part = [](const at::Tensor& x, const std::vector<int64_t>& rows) {
          return x.narrow(0, rows.front(), static_cast<int64_t>(rows.size()));
        };
        const std::vector<uint32_t> positions(s.positions.begin(), s.positions.end());
        const at::Tensor one = attention(spec, layer, part(q, s.queries), part(k, s.keys), part(v, s.keys), positions);
        good = good && at::allclose(part(all, s.queries), one, 1e-10, 1e-12);
      }
    }
    return good;
  });
  run("a loss in slices is the whole loss", [] {
    const auto decoder = random_decoder(small_spec(true), 9);
    auto random = at::make_generator<at::CPUGeneratorImpl>(8);
    const at::Tensor hidden = at::randn({7, 8}, random, at::kDouble), ids = at::arange(7, at::kLong);
    const auto gradient = [&](int64_t most) {
      const at::Tensor x = hidden.clone().set_requires_grad(true);
      const at::Tensor loss = next_token_loss(decoder->spec(), decoder->weights(), x, ids, most);
      loss.backward();
      return at::cat({x.grad().flatten(), loss.detach().reshape({1})});
    };
    return at::allclose(gradient(1000), gradient(2 * 13), 1e-10, 1e-12);
  });
  run("recompute: values, gradients of inputs and of other leaves", [] {
    const at::Tensor x = at::arange(4, at::kDouble).set_requires_grad(true);
    const at::Tensor w = (at::arange(4, at::kDouble) + 1).set_requires_grad(true);
    const Stretch segment = [w](const std::vector<at::Tensor>& in) {
      return std::vector<at::Tensor>{at::tanh(in[0] * w), in[0] + in[1]};
    };
    const at::Tensor fixed = at::arange(4, at::kDouble);
    const auto out = recompute(segment, {x, fixed});
    (out[0] * out[1]).sum().backward();
    const at::Tensor gx = x.grad().clone(), gw = w.grad().clone();
    x.grad().zero_();
    w.grad().zero_();
    const auto plain = segment({x, fixed});
    (plain[0] * plain[1]).sum().backward();
    return at::equal(out[0], plain[0]) && at::allclose(gx, x.grad()) && at::allclose(gw, w.grad());
  });
  run("samples are dealt out by their rows, one at least to each share", [] {
    using Ends = std::vector<int64_t>;
    return deal({5, 5, 5, 5}, 2) == Ends{2, 4} && deal({30, 1, 1, 1}, 2) == Ends{1, 4} &&
           deal({1, 1, 1, 30}, 2) == Ends{3, 4} && deal({30, 1, 1}, 3) == Ends{1, 2, 3} &&
           deal({0, 0, 9}, 3) == Ends{1, 2, 3} && deal({7}, 1) == Ends{1} && deal({2, 9, 4, 6, 3}, 3) == Ends{2, 3, 5};
  });
  run("random streams are functions of their keys", [] {
    const auto draw = [](std::initializer_list<uint64_t> key) { return at::randn({4}, random_stream(key)); };
    return at::equal(draw({1, 2}), draw({1, 2})) && !at::equal(draw({1, 2}), draw({2, 1})) && mix({0}) != mix({0, 0});
  });
  run("a state that does not fit is refused", [] {
    Parameters parameters({{"a", {2}}});
    AdamW optimizer(parameters, {});
    const at::Tensor good = at::arange(2).to(at::kFloat), bad = at::arange(3).to(at::kFloat);
    return throws("SHAPE_MISMATCH", [&] { load_weights(parameters, {}); }) &&
           throws("SHAPE_MISMATCH",
                  [&] {
                    load_weights(parameters, {{"a", bad}});
                  }) &&
           throws("SHAPE_MISMATCH",
                  [&] {
                    load_weights(parameters, {{"a", good}, {"b", good}});
                  }) &&
           throws("SHAPE_MISMATCH", [&] {
             restore_state(parameters, optimizer, 1, {{"value/a", good}});
           });
  });
}

}  // namespace

int main() {
  at::set_num_threads(1);
  parts();
  return result();
}
