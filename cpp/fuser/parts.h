// Building blocks that projector kinds share: reading weights and options, linear maps, norms, gates.
#pragma once
#ifndef AT_PER_OPERATOR_HEADERS
#define AT_PER_OPERATOR_HEADERS
#endif
#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fuser/fuser.h"

namespace c2c {

// Options with their defaults; OPTION_INVALID where a value has the wrong type.
class OptionReader {
 public:
  explicit OptionReader(const Options& options) : options_(options) {}
  double number(const std::string& name, double fallback) const;
  // A whole number not below `least`.
  int64_t count(const std::string& name, int64_t fallback, int64_t least = 1) const;
  bool flag(const std::string& name, bool fallback) const;
  std::string text(const std::string& name, const std::string& fallback) const;
  // One of `allowed`.
  std::string choice(const std::string& name, const std::string& fallback,
                     const std::vector<std::string>& allowed) const;

 private:
  const Option* find(const std::string& name) const;
  const Options& options_;
};

// Takes tensors out of a state dictionary, checks their shapes and casts them.
class WeightReader {
 public:
  WeightReader(Tensors weights, at::ScalarType dtype) : weights_(std::move(weights)), dtype_(dtype) {}
  // Makes every tensor that is asked for, instead of taking it from somewhere.
  using Make = std::function<at::Tensor(const std::string& name, const std::vector<int64_t>& shape)>;
  WeightReader(Make make, at::ScalarType dtype) : make_(std::move(make)), dtype_(dtype) {}
  at::Tensor take(const std::string& name, const std::vector<int64_t>& shape);
  // Drops a tensor that may be there but has no meaning here.
  void ignore(const std::string& name) { weights_.erase(name); }
  // SHAPE_MISMATCH (expected []) if a tensor was not taken. Returns the bytes of all that were.
  int64_t finish() const;

 private:
  Tensors weights_;
  Make make_;
  at::ScalarType dtype_;
  int64_t bytes_ = 0;
};

// Sets a share `p` of x's values to zero and scales the others up, where there is a random stream (in training); the
// mask comes from that stream.
at::Tensor drop(const at::Tensor& x, double p, const std::shared_ptr<at::Generator>& random);

struct Affine {
  at::Tensor weight, bias;  // [out, in], [out]
  Affine() = default;
  Affine(WeightReader& reader, const std::string& name, int64_t in, int64_t out);
  at::Tensor operator()(const at::Tensor& x) const;
};

// The dtype in which gates and weights are applied: float32, or float64 for float64 fusers.
at::ScalarType wide(at::ScalarType dtype);

// RMS norm over the last axis, epsilon 1e-6, accumulated in fp32 (or wider); the result has x's dtype.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight);

// sigmoid((logit + n) / temperature) with one standard Gumbel draw n for each uniform draw.
at::Tensor soft_gate(const at::Tensor& logit, const at::Tensor& uniform, double temperature);

// Checks that rows are [tokens, heads, dim] of equal length, and returns the number of tokens.
int64_t check_rows(const Rows& sharer, const Rows& receiver, HeadShape sharer_shape, HeadShape receiver_shape);

// Thrown for kinds and combinations of options that cannot run.
[[noreturn]] void unsupported(const std::string& what, std::vector<std::string> supported);

}  // namespace c2c
