// Every kernel of every instruction set that this machine runs, against plain ATen. Prints "N passed, N failed".
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/packed.h"
#include "kernels/team.h"
#include "kernels_check.h"

using namespace c2c;

namespace {

// The same of root mean squares: what a group's rounding allows is a matter of averages.
double spread_of(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor reference = expected.to(at::kDouble);
  return ((actual.to(at::kDouble) - reference).square().mean() / reference.square().mean()).sqrt().item<double>();
}

const char* name_of(Store store) {
  return store == Store::kFloat ? "float" : store == Store::kBf16 ? "bf16" : store == Store::kInt8 ? "int8" : "int4";
}

bool bf16_rows(Store store) { return store != Store::kFloat; }
at::ScalarType row_type(Store store) { return bf16_rows(store) ? at::kBFloat16 : at::kFloat; }

// Rows [n, in] padded with zeros to what a product reads.
at::Tensor padded(const at::Tensor& x, Store store) {
  at::Tensor wide = at::zeros({x.size(0), padded_inputs(store, x.size(1))}, x.options().dtype(row_type(store)));
  wide.narrow(1, 0, x.size(1)).copy_(x);
  return wide;
}

// All of a weight's blocks.
Bytes pack(const Kernels& k, Store store, const at::Tensor& w) {
  const int64_t out = w.size(0), in = w.size(1), bytes = block_bytes(store, in);
  Bytes packed((out + kBlock - 1) / kBlock * bytes);
  for (int64_t row = 0; row < out; row += kBlock) {
    const at::Tensor part = w.narrow(0, row, std::min(kBlock, out - row));
    k.pack(store, packed.data() + row / kBlock * bytes, in, part.const_data_ptr(), w.scalar_type() == at::kBFloat16,
           w.stride(0), part.size(0), 0, in, 0);
  }
  return packed;
}

// Rows as codes.
std::vector<RowCodes> encoded(const Kernels& k, const at::Tensor& rows) {
  std::vector<RowCodes> codes(static_cast<size_t>(rows.numel() / kGroup));
  k.encode(static_cast<const Bf16*>(rows.const_data_ptr()), rows.stride(0), rows.size(0), rows.size(1), codes.data());
  return codes;
}

// Bounds on the error of a product: rounding alone, or what a group's scale allows.
double bound(Store store) {
  return store == Store::kFloat ? 2e-6 : store == Store::kBf16 ? 1e-5 : store == Store::kInt8 ? 0.015 : 0.2;
}

void products(const Kernels& k) {
  for (const Store store : {Store::kFloat, Store::kBf16, Store::kInt8, Store::kInt4}) {
    for (const auto& [rows, in, out] : {std::tuple{1, 1024, 256},
                                        {1, 33, 5},
                                        {2, 96, 64},
                                        {3, 112, 100},
                                        {5, 7, 65},
                                        {8, 64, 130},
                                        {29, 304, 112},
                                        {199, 131, 70},
                                        {103, 1100, 130}}) {
      const std::string label = std::string(k.name) + " " + name_of(store) + " product " + std::to_string(rows) + "x" +
                                std::to_string(in) + "x" + std::to_string(out);
      run(label, [&, rows = rows, in = in, out = out] {
        const at::Tensor x = at::randn({rows, in}).to(row_type(store)), bias = at::randn({round_up(out, kBlock)});
        const at::Tensor w = at::randn({out, in}).to(row_type(store));
        Bytes packed = pack(k, store, w), scratch(product_scratch(store, in));
        const at::Tensor wide = padded(x, store);
        at::Tensor y = at::zeros({rows, out + 3});
        Product p{.store = store, .x = wide.const_data_ptr(), .x_stride = wide.size(1), .in = in};
        p.weight = packed.data();
        p.bias = bias.const_data_ptr<float>();
        p.out = y.data_ptr();
        p.out_stride = out + 3;
        p.outputs = out;
        p.rows = rows;
        std::vector<RowCodes> codes;
        if (is_quantised(store) && rows <= kCodedRows) {
          codes = encoded(k, wide);
          p.codes = codes.data();
        }
        k.product(p, 0, (out + kBlock - 1) / kBlock, scratch.data());
        const at::Tensor expected =
            at::linear(x.to(at::kDouble), w.to(at::kDouble), bias.narrow(0, 0, out).to(at::kDouble));
        const bool inside = (y.narrow(1, out, 3) == 0).all().item<bool>();  // nothing beyond the outputs
        p.after = After::kAdd;
        p.bias = nullptr;
        const at::Tensor once = y.clone();
        k.product(p, 0, (out + kBlock - 1) / kBlock, scratch.data());
        const at::Tensor twice = once.narrow(1, 0, out) * 2 - bias.narrow(0, 0, out);
        return inside && error_of(y.narrow(1, 0, out), twice) < 1e-5 &&
               spread_of(once.narrow(1, 0, out), expected) < bound(store);
      });
    }
  }
}

// What quantised weights are is read out with rows of one 1 each; products with them must then be as exact as the rows'
// codes: a 32,512th of a group's largest value, whatever else the row holds. Few rows and many give the same.
void codes(const Kernels& k) {
  for (const Store store : {Store::kInt8, Store::kInt4}) {
    for (const int64_t rows : {1, 2, 3, 4, 7, 8}) {
      const std::string label = std::string(k.name) + " " + name_of(store) + " codes of " + std::to_string(rows);
      run(label + " rows", [&, rows = rows] {
        const int64_t in = 96, out = 128;
        Bytes packed = pack(k, store, at::randn({out, in}).to(at::kBFloat16)), scratch(product_scratch(store, in));
        const auto made = [&](const at::Tensor& x, bool coded) {
          at::Tensor y = at::zeros({x.size(0), out});
          const auto words = encoded(k, x);
          Product p{.store = store, .x = x.const_data_ptr(), .x_stride = in, .in = in};
          if (coded) p.codes = words.data();
          p.weight = packed.data();
          p.out = y.data_ptr();
          p.out_stride = p.outputs = out;
          p.rows = x.size(0);
          k.product(p, 0, out / kBlock, scratch.data());
          return y;
        };
        std::vector<at::Tensor> parts;
        const at::Tensor ones = at::eye(in).to(at::kBFloat16);
        for (int64_t i = 0; i < in; i += kCodedRows) parts.push_back(made(ones.narrow(0, i, kCodedRows), true));
        const at::Tensor weight = at::cat(parts).to(at::kDouble);
        // Groups of very different size, the first of zeros.
        at::Tensor x = at::randn({rows, in});
        x.narrow(1, 0, kGroup).zero_();
        x.narrow(1, kGroup, kGroup) *= 1000;
        x = x.to(at::kBFloat16);
        const at::Tensor expected = x.to(at::kDouble).mm(weight);
        const bool close = error_of(made(x, true), expected) < 3e-5 && error_of(made(x, false), expected) < 4e-3;
        // What is not a number is not lost, wherever it stands; other rows do not notice.
        bool kept = true;
        for (const auto& [at, value] : {std::pair{3, NAN}, {40, INFINITY}, {95, NAN}}) {
          at::Tensor bad = x.clone();
          bad[rows - 1][at] = value;
          const at::Tensor y = made(bad, true);
          kept = kept && !y[rows - 1].isfinite().any().item<bool>();
          if (rows > 1)
            kept = kept && (y.narrow(0, 0, rows - 1) == made(x, true).narrow(0, 0, rows - 1)).all().item<bool>();
        }
        // Nothing is so small that it makes more than nothing.
        const at::Tensor least = made(at::full({rows, in}, 1e-36).to(at::kBFloat16), true);
        return close && kept && least.isfinite().all().item<bool>() && least.abs().max().item<float>() < 1e-30F;
      });
    }
  }
}

void afters(const Kernels& k) {
  for (const Store store : {Store::kFloat, Store::kBf16}) {
    const double limit = store == Store::kFloat ? 2e-6 : 5e-3;
    const int64_t rows = 7, in = 50, out = 70;
    const at::Tensor x = at::randn({rows, in}).to(row_type(store)), w = at::randn({out, in}).to(row_type(store)) * 0.3;
    const at::Tensor v = at::randn({out, in}).to(row_type(store)) * 0.3;
    const auto plain = [&](const at::Tensor& weight) { return at::linear(x.to(at::kFloat), weight.to(at::kFloat)); };
    const auto made = [&](const Packed& packed, After after) {
      at::Tensor y = at::zeros({rows, out}, x.options());
      Product p = packed.product();
      p.x = x.const_data_ptr();
      p.x_stride = in;
      p.after = after;
      p.out = y.data_ptr();
      p.out_stride = p.outputs = out;
      p.rows = rows;
      k.product(p, 0, packed.blocks, nullptr);
      return y;
    };
    PackedWeights weights;
    Packed one, gated;
    weights.add({{w}, {}, false, store}, &one);
    weights.add({{w, v}, {}, true, store}, &gated);
    weights.pack();
    const std::string label = std::string(k.name) + " " + name_of(store) + " ";
    run(label + "gelu", [&] { return error_of(made(one, After::kGelu), at::gelu(plain(w))) < limit; });
    run(label + "silu gate",
        [&] { return error_of(made(gated, After::kGateSilu), at::silu(plain(w)) * plain(v)) < limit; });
    run(label + "gelu gate",
        [&] { return error_of(made(gated, After::kGateGelu), at::gelu(plain(w)) * plain(v)) < limit; });
    run(label + "tanh gelu gate",
        [&] { return error_of(made(gated, After::kGateGeluTanh), at::gelu(plain(w), "tanh") * plain(v)) < limit; });
    run(label + "far from zero", [&] {
      const at::Tensor values =
          at::tensor({-1e30, -200.0, -90.0, -87.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 87.0, 90.0, 200.0, 1e30, NAN})
              .to(row_type(store));
      const int64_t count = values.size(0);
      const at::Tensor unit = at::tensor({1.0, 0.0}).to(row_type(store));
      const at::Tensor zeros = at::zeros_like(values), ones = at::ones_like(values);
      const auto column = [&](const at::Tensor& first) { return at::stack({first, zeros}, 1); };
      PackedWeights far;
      Packed alone, pairs;
      far.add({{column(values)}, {}, false, store}, &alone);
      far.add({{column(values), column(ones)}, {}, true, store}, &pairs);
      far.pack();
      const auto near = [&](const Packed& packed, After after, const at::Tensor& expected) {
        at::Tensor y = at::zeros({1, count}, values.options());
        Product p = packed.product();
        p.x = unit.const_data_ptr();
        p.x_stride = 2;
        p.after = after;
        p.out = y.data_ptr();
        p.out_stride = p.outputs = count;
        p.rows = 1;
        k.product(p, 0, packed.blocks, nullptr);
        return at::allclose(y[0].to(at::kFloat), expected, store == Store::kFloat ? 1e-6 : 1e-2, 1e-8, true);
      };
      const at::Tensor wide = values.to(at::kFloat);
      return near(alone, After::kGelu, at::gelu(wide)) && near(pairs, After::kGateSilu, at::silu(wide)) &&
             near(pairs, After::kGateGeluTanh, at::gelu(wide, "tanh"));
    });
  }
}

// Inputs in two pieces, for few rows and for many: those are longer than what is taken at a time.
void two_pieces(const Kernels& k, int64_t rows, int64_t first, int64_t second) {
  for (const Store store : {Store::kFloat, Store::kBf16})
    run(std::string(k.name) + " " + name_of(store) + " two pieces of input, rows " + std::to_string(rows), [&] {
      const int64_t in = first + second, out = 70;
      const at::Tensor x = at::randn({rows, in}).to(row_type(store)), w = at::randn({out, in}).to(row_type(store));
      PackedWeights weights;
      Packed one;
      weights.add({{w}, {}, false, store}, &one);
      weights.pack();
      at::Tensor y = at::zeros({rows, out});
      Product p = one.product();
      p.x = x.const_data_ptr();
      p.x2 = static_cast<const std::byte*>(x.const_data_ptr()) + first * x.element_size();
      p.x_stride = p.x2_stride = in;
      p.in = first;
      p.in2 = second;
      p.out = y.data_ptr();
      p.out_stride = p.outputs = out;
      p.rows = rows;
      k.product(p, 0, one.blocks, nullptr);
      const at::Tensor expected = at::linear(x.to(at::kDouble), w.to(at::kDouble));
      return error_of(y, expected) < 1e-5 && spread_of(y, expected) < bound(store);
    });
}

void rows(const Kernels& k) {
  for (const int64_t n : {4, 24, 64, 112, 128, 1000, 3000}) {
    const at::Tensor x = at::randn({n}), w = at::rand({n}) + 0.5;
    const at::Tensor unit = x / (x.square().mean() + 1e-6).sqrt() * w;
    const at::Tensor cos = at::rand({n / 2}), sin = at::rand({n / 2});
    const auto turned = [&](const at::Tensor& y) {
      const at::Tensor a = y.narrow(0, 0, n / 2), b = y.narrow(0, n / 2, n / 2);
      return at::cat({a * cos - b * sin, b * cos + a * sin});
    };
    for (const bool bf16 : {false, true}) {
      const std::string label = std::string(k.name) + (bf16 ? " bf16 " : " float ") + std::to_string(n) + " ";
      const double limit = bf16 ? 4e-3 : 1e-6;
      at::Tensor out = at::ones({n + 8}, at::TensorOptions().dtype(bf16 ? at::kBFloat16 : at::kFloat));
      run(label + "norm", [&] {
        k.norm(x.const_data_ptr<float>(), w.const_data_ptr<float>(), 1e-6, n, n + 5, out.data_ptr(), bf16);
        return error_of(out.narrow(0, 0, n), unit) < limit && (out.narrow(0, n, 5) == 0).all().item<bool>() &&
               (out.narrow(0, n + 5, 3) == 1).all().item<bool>();
      });
      const Rope rope{cos.const_data_ptr<float>(), sin.const_data_ptr<float>()};
      run(label + "turn", [&] {
        k.turn(x.const_data_ptr<float>(), nullptr, 0, rope, n, out.data_ptr(), bf16);
        return error_of(out.narrow(0, 0, n), turned(x)) < limit;
      });
      run(label + "norm and turn", [&] {
        k.turn(x.const_data_ptr<float>(), w.const_data_ptr<float>(), 1e-6, rope, n, out.data_ptr(), bf16);
        return error_of(out.narrow(0, 0, n), turned(unit)) < limit;
      });
      run(label + "gated write", [&] {
        const at::Tensor made = at::randn({3, n}), base = at::randn({3, n}).to(out.scalar_type()),
                         gate = at::rand({3, 1});
        at::Tensor dst = at::zeros({3, n}, base.options());
        k.gated(made.const_data_ptr<float>(), base.const_data_ptr(), gate.const_data_ptr<float>(), 3, n, dst.data_ptr(),
                bf16);
        return error_of(dst, base.to(at::kFloat) + gate * made) < limit;
      });
    }
    run(std::string(k.name) + " largest " + std::to_string(n), [&] {
      const float nan = std::numeric_limits<float>::quiet_NaN();
      int64_t at = -1;
      const at::Tensor row = x.clone();
      auto* values = row.data_ptr<float>();
      k.top(values, n, &at);
      if (at != row.argmax().item<int64_t>()) return false;
      for (const int64_t first : {int64_t{0}, n / 3, n - 1}) {
        values[first] = values[n - 1] = 9;
        values[n / 2] = n / 2 == first || n / 2 == n - 1 ? 9 : nan;
        k.top(values, n, &at);
        if (at != first) return false;
        values[first] = 0;
      }
      std::fill_n(values, n, nan);
      k.top(values, n, &at);
      return at == 0;
    });
    run(std::string(k.name) + " conversion " + std::to_string(n), [&] {
      at::Tensor half = at::zeros({n}, at::TensorOptions().dtype(at::kBFloat16)), back = at::zeros({n});
      k.narrow(x.const_data_ptr<float>(), n, reinterpret_cast<Bf16*>(half.data_ptr()));
      k.widen(reinterpret_cast<const Bf16*>(half.const_data_ptr()), n, back.data_ptr<float>());
      return (half == x.to(at::kBFloat16)).all().item<bool>() && (back == half.to(at::kFloat)).all().item<bool>();
    });
  }
}

void teams() {
  run("a team's phases do not overlap", [] {
    std::vector<int> seen(64, 0);
    std::atomic<bool> ok{true};
    run_team(8, [&](const Member& m) {
      for (int phase = 1; phase <= 500; ++phase) {
        const auto [begin, end] = m.share(64);
        for (int64_t i = begin; i < end; ++i) seen[static_cast<size_t>(i)] = phase;
        m.sync();
        for (const int s : seen) {
          if (s != phase) ok = false;
        }
        m.sync();
      }
    });
    return ok.load();
  });
}

}  // namespace

int main() {
  const KernelList all = all_kernels();
  for (size_t i = 0; i < all.count; ++i) {
    const Kernels& k = *all.tables[i];
    at::manual_seed(1);  // the same values for every set: bounds on averages hold for these, not for any values
    products(k);
    codes(k);
    afters(k);
    two_pieces(k, 7, 20, 30);
    two_pieces(k, 101, 600, 530);
    rows(k);
  }
  teams();
  return result();
}
