// Gated towers in the form that is not differentiated, of widths that fill no block of packed weights, against the
// plain form in float32. Prints "N passed, N failed".
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>

#include "check.h"
#include "fuser/fuser.h"

using namespace c2c;

namespace {

Tensors weights(const std::string& kind, const Options& options, HeadShape receiver, HeadShape sharer) {
  Tensors made;
  for (const auto& [name, shape] : projector_shapes(kind, options, receiver, sharer)) {
    if (name.ends_with("gate_logit") || name.ends_with("gate_temperature")) {
      made[name] = at::ones(shape);
    } else {
      const double inputs = shape.size() == 2 ? static_cast<double>(shape[1]) : 1.0;
      made[name] = at::randn(shape) * (2.0 / std::sqrt(inputs));
    }
    made[name] = made[name].to(at::kBFloat16);
  }
  return made;
}

// How far rows and weights are from the plain ones of float32, relative to what the plain form adds.
struct Distance {
  double rows = 0, weights = 0;
};

Distance distance(const Projected& made, const Projected& exact, const Rows& base) {
  Distance d;
  const auto compare = [](const at::Tensor& a, const at::Tensor& b, const at::Tensor& size) {
    return ((a.to(at::kFloat) - b).norm() / size.norm()).item<double>();
  };
  d.rows = worse(compare(made.key, exact.key, exact.key - base.key),
                 compare(made.value, exact.value, exact.value - base.value));
  d.weights = worse(compare(made.key_weight, exact.key_weight, exact.key_weight),
                    compare(made.value_weight, exact.value_weight, exact.value_weight));
  return d;
}

void compare(const std::string& kind, int64_t heads, int64_t rows, double layers) {
  const HeadShape receiver{heads, 4}, sharer{3, 6};
  const Options options{{"hidden_dim", 73.0}, {"intermediate_dim", 41.0}, {"num_layers", layers}};
  const Tensors given = weights(kind, options, receiver, sharer);
  Tensors wide = given;
  for (auto& [name, tensor] : wide) tensor = tensor.to(at::kFloat);
  const auto rounded = [&](HeadShape shape) {
    return at::randn({rows, shape.kv_heads, shape.head_dim}).to(at::kBFloat16);
  };
  const Rows from{rounded(sharer), rounded(sharer)}, onto{rounded(receiver), rounded(receiver)};
  const auto in_float = [](const Rows& r) { return Rows{r.key.to(at::kFloat), r.value.to(at::kFloat)}; };
  // Rows that are differentiated take the plain form.
  const auto followed = [](Rows r) {
    r.key.requires_grad_();
    r.value.requires_grad_();
    return r;
  };
  const auto detached = [](Projected p) {
    for (at::Tensor* t : {&p.key, &p.value, &p.key_weight, &p.value_weight}) *t = t->detach();
    return p;
  };
  const auto narrow = make_projector(kind, options, receiver, sharer, given, at::kBFloat16);
  const auto exact = make_projector(kind, options, receiver, sharer, wide, at::kFloat);
  const Rows base = in_float(onto);
  const Projected reference = detached(exact->project(in_float(from), followed(in_float(onto)), nullptr, 1));
  const std::string label = kind + " heads " + std::to_string(heads) + " rows " + std::to_string(rows);
  run(label + " float32", [&] {
    const Distance d = distance(exact->project(in_float(from), base, nullptr, 1), reference, base);
    if (d.rows > 2e-5 || d.weights > 2e-5) std::printf("%s: %g, %g\n", label.c_str(), d.rows, d.weights);
    return d.rows <= 2e-5 && d.weights <= 2e-5;
  });
  run(label + " bfloat16", [&] {
    // Receivers of float32 keep what bfloat16 would round away behind the sum. Both forms round on the way: the packed
    // one may be no further from float32 than the plain one. A single row is too few numbers for that.
    const Distance packed = distance(narrow->project(from, base, nullptr, 1), reference, base);
    const Distance plain =
        distance(detached(narrow->project(from, followed(in_float(onto)), nullptr, 1)), reference, base);
    const auto near = [&](double off, double other) { return off <= (rows == 1 ? 0.05 : 1.1 * other); };
    const bool ok = near(packed.rows, plain.rows) && near(packed.weights, plain.weights);
    if (!ok)
      std::printf("%s: rows %g and %g, weights %g and %g\n", label.c_str(), packed.rows, plain.rows, packed.weights,
                  plain.weights);
    return ok;
  });
}

}  // namespace

int main() {
  at::manual_seed(1);
  for (const int64_t heads : {3, 17, 70})
    for (const int64_t rows : {1, 7, 50}) compare("C2CProjector", heads, rows, rows == 7 ? 4 : 3);
  return result();
}
