#include "fuser/parts.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>

#include <algorithm>
#include <cmath>

namespace c2c {

const Option* OptionReader::find(const std::string& name) const {
  auto found = options_.find(name);
  return found == options_.end() ? nullptr : &found->second;
}

double OptionReader::number(const std::string& name, double fallback) const {
  const Option* option = find(name);
  if (!option) return fallback;
  if (auto value = std::get_if<double>(option)) return *value;
  option_invalid(name, "must be a number");
}

int64_t OptionReader::count(const std::string& name, int64_t fallback, int64_t least) const {
  double value = number(name, static_cast<double>(fallback));
  if (!(value >= static_cast<double>(least) && value < 1e9) || value != std::floor(value))
    option_invalid(name, "must be a whole number of at least " + std::to_string(least));
  return static_cast<int64_t>(value);
}

bool OptionReader::flag(const std::string& name, bool fallback) const {
  const Option* option = find(name);
  if (!option) return fallback;
  if (auto value = std::get_if<bool>(option)) return *value;
  option_invalid(name, "must be true or false");
}

std::string OptionReader::text(const std::string& name, const std::string& fallback) const {
  const Option* option = find(name);
  if (!option) return fallback;
  if (auto value = std::get_if<std::string>(option)) return *value;
  option_invalid(name, "must be a string");
}

std::string OptionReader::choice(const std::string& name, const std::string& fallback,
                                 const std::vector<std::string>& allowed) const {
  std::string value = text(name, fallback);
  if (std::find(allowed.begin(), allowed.end(), value) == allowed.end())
    unsupported(name + " \"" + value + "\"", allowed);
  return value;
}

at::Tensor WeightReader::take(const std::string& name, const std::vector<int64_t>& shape) {
  if (make_) return make_(name, shape).to(dtype_);
  auto found = weights_.find(name);
  if (found == weights_.end()) shape_mismatch(name, shape, {});
  at::Tensor tensor = found->second;
  if (tensor.sizes() != at::IntArrayRef(shape)) shape_mismatch(name, shape, tensor.sizes().vec());
  weights_.erase(found);
  tensor = tensor.to(dtype_);
  bytes_ += static_cast<int64_t>(tensor.nbytes());
  return tensor;
}

int64_t WeightReader::finish() const {
  const std::string* extra = nullptr;
  for (const auto& entry : weights_)
    if (!extra || entry.first < *extra) extra = &entry.first;
  if (extra) shape_mismatch(*extra, {}, weights_.at(*extra).sizes().vec());
  return bytes_;
}

Affine::Affine(WeightReader& reader, const std::string& name, int64_t in, int64_t out)
    : weight(reader.take(name + ".weight", {out, in})), bias(reader.take(name + ".bias", {out})) {}

at::Tensor Affine::operator()(const at::Tensor& x) const { return at::linear(x, weight, bias); }

at::Tensor drop(const at::Tensor& x, double p, const std::shared_ptr<at::Generator>& random) {
  if (!random || p == 0) return x;
  return x * at::empty_like(x).bernoulli_(1 - p, *random).div_(1 - p);
}

at::ScalarType wide(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight) {
  at::Tensor full = x.to(wide(x.scalar_type()));
  at::Tensor scale = at::rsqrt(at::mean(full * full, at::IntArrayRef{-1}, true) + 1e-6);
  return (full * scale).to(x.scalar_type()) * weight;
}

at::Tensor soft_gate(const at::Tensor& logit, const at::Tensor& uniform, double temperature) {
  if (!(temperature > 0)) option_invalid("temperature", "must be above zero");
  at::Tensor draws = uniform.to(wide(uniform.scalar_type()));
  at::Tensor gumbel = -at::log(-at::log(draws + 1e-20) + 1e-20);
  return at::sigmoid((logit.to(gumbel.scalar_type()) + gumbel) / temperature);
}

int64_t check_rows(const Rows& sharer, const Rows& receiver, HeadShape sharer_shape, HeadShape receiver_shape) {
  const int64_t tokens = receiver.key.dim() > 0 ? receiver.key.size(0) : 0;
  auto check = [tokens](const char* name, const at::Tensor& rows, HeadShape shape) {
    std::vector<int64_t> expected{tokens, shape.kv_heads, shape.head_dim};
    if (rows.sizes() != at::IntArrayRef(expected)) shape_mismatch(name, expected, rows.sizes().vec());
  };
  check("receiver.key", receiver.key, receiver_shape);
  check("receiver.value", receiver.value, receiver_shape);
  check("sharer.key", sharer.key, sharer_shape);
  check("sharer.value", sharer.value, sharer_shape);
  return tokens;
}

void unsupported(const std::string& what, std::vector<std::string> supported) {
  throw Error("UNSUPPORTED", what + " is not supported", {{"what", what}, {"supported", std::move(supported)}});
}

}  // namespace c2c
