#include "model/decoder.h"

#include <ATen/ops/cat.h>

#include <algorithm>

#include "cuda/cuda.h"
#include "model/blocks.h"
#include "model/fast.h"

namespace c2c {

namespace {

std::shared_ptr<const Ropes> ropes_of(const DecoderSpec& spec) {
  auto ropes = std::make_shared<Ropes>();
  ropes->inverse_frequencies = spec.ropes;
  for (const LayerSpec& layer : spec.layers) ropes->of_layer.push_back(layer.rope);
  return ropes;
}

std::unordered_map<std::string, at::Tensor> on_device(std::unordered_map<std::string, at::Tensor> weights,
                                                      at::Device device) {
  for (auto& [name, weight] : weights) weight = weight.to(device);
  return weights;
}

}  // namespace

Decoder::Decoder(DecoderSpec spec, std::unordered_map<std::string, at::Tensor> weights, at::ScalarType dtype,
                 Quantize quantize, at::Device device)
    : spec_(std::move(spec)),
      ropes_(ropes_of(spec_)),
      dtype_(dtype),
      device_(device),
      weights_(take_weights(spec_, on_device(std::move(weights), device))),
      quantised_(quantize != Quantize::kNone) {
  if (!device.is_cpu()) stack_weights(weights_);
  if (!quantised_) return;
  if (!device.is_cpu())
    throw Error("UNSUPPORTED", "quantised weights run on the CPU alone",
                {{"what", std::string("quantised weights on " + device.str())},
                 {"supported", std::vector<std::string>{"quantised weights on cpu", "float32", "bfloat16"}}});
  DecoderWeights plain = std::move(weights_);
  weights_ = {};
  fast_ = std::make_unique<FastDecoder>(spec_, std::move(plain), dtype_, quantize);
}

Decoder::~Decoder() = default;

const DecoderWeights& Decoder::weights() const {
  if (!quantised_) return weights_;
  throw Error(
      "UNSUPPORTED", "quantised weights have no plain form, and cannot be trained",
      {{"what", std::string("quantised weights")}, {"supported", std::vector<std::string>{"float32", "bfloat16"}}});
}

int64_t Decoder::bytes() const { return quantised_ ? fast_->bytes() : weights_.bytes; }

CacheLayout Decoder::layout() const {
  return {static_cast<int64_t>(spec_.layers.size()), spec_.kv_heads, spec_.head_dim, spec_.context, dtype_, device_};
}

Batch Decoder::prepare(std::vector<Request>& requests) const {
  const bool windows =
      std::any_of(spec_.layers.begin(), spec_.layers.end(), [](const LayerSpec& l) { return l.window > 0; });
  Batch batch;
  for (auto& r : requests) {
    const auto rows = static_cast<int64_t>(r.tokens.size());
    if (r.given && r.cache->length() < rows)
      option_invalid("given", "the cache holds fewer rows than there are tokens");
    if (!r.given) r.cache->make_room(rows);
    if (r.positions.empty()) r.positions = r.cache->next_positions(rows);
    for (const uint32_t position : r.positions)
      if (position >= spec_.context)
        throw Error("CACHE_FULL", "position " + std::to_string(position) + " is past the model's context",
                    {{"length", static_cast<double>(position) + 1}, {"capacity", static_cast<double>(spec_.context)}});
    Share share{batch.rows(), rows, r.cache->length() - (r.given ? rows : 0), {}};
    if (!r.given) r.cache->reserve(rows);
    if (windows) {
      const auto& old = r.cache->positions();
      share.positions.assign(old.begin(), old.begin() + share.past);
      share.positions.insert(share.positions.end(), r.positions.begin(), r.positions.end());
    }
    batch.tokens.insert(batch.tokens.end(), r.tokens.begin(), r.tokens.end());
    batch.positions.insert(batch.positions.end(), r.positions.begin(), r.positions.end());
    batch.any_logits = batch.any_logits || r.logits != Logits::kNone;
    batch.all_given = batch.all_given && r.given;
    batch.shares.push_back(std::move(share));
  }
  return batch;
}

void Decoder::commit(std::vector<Request>& requests) {
  for (auto& r : requests)
    if (!r.given) r.cache->commit(r.tokens.data(), r.positions.data(), static_cast<int64_t>(r.tokens.size()));
}

Runner* Decoder::fast() const {
  if (quantised_) return fast_.get();
  if (weights_.embedding.scalar_type() != dtype_ || (dtype_ != at::kFloat && dtype_ != at::kBFloat16)) return nullptr;
  const auto grad = [](const at::Tensor& t) { return t.defined() && t.requires_grad(); };
  bool any = grad(weights_.embedding) || grad(weights_.head) || grad(weights_.final_norm);
  for (const Layer& l : weights_.layers) any = any || grad(l.query.weight) || grad(l.down.weight) || grad(l.input_norm);
  if (any) return nullptr;
  if (!fast_ || !fast_->fits(weights_)) {
    fast_.reset();  // the old one's memory goes first
    if (device_.is_cpu()) {
      fast_ = std::make_unique<FastDecoder>(spec_, weights_, dtype_, Quantize::kNone);
    } else {
      fast_ = cuda::make_runner(spec_, weights_, dtype_);
    }
  }
  return fast_.get();
}

std::vector<at::Tensor> Decoder::forward(std::vector<Request>& requests, const CancelFlag& cancel) const {
  Runner* packed = fast();
  return packed == nullptr ? plain_forward(requests, cancel) : forward_on(*packed, requests, cancel);
}

std::vector<at::Tensor> Decoder::forward_on(Runner& runner, std::vector<Request>& requests,
                                            const CancelFlag& cancel) const {
  const Batch batch = prepare(requests);
  if (batch.tokens.empty()) return std::vector<at::Tensor>(requests.size());
  check(cancel);
  auto results = runner.forward(requests, batch, cancel);
  commit(requests);
  return results;
}

std::vector<at::Tensor> Decoder::plain_forward(std::vector<Request>& requests, const CancelFlag& cancel) const {
  const Batch batch = prepare(requests);
  if (batch.tokens.empty()) return std::vector<at::Tensor>(requests.size());
  auto results = run_plain(requests, batch, cancel);
  commit(requests);
  return results;
}

std::vector<at::Tensor> Decoder::run_plain(std::vector<Request>& requests, const Batch& batch,
                                           const CancelFlag& cancel) const {
  std::vector<Angles> turns;
  for (size_t rope = 0; rope < spec_.ropes.size(); ++rope)
    turns.push_back(angles(spec_, rope, batch.positions, dtype_, device_));
  at::Tensor x = embed(spec_, weights_, batch.tokens);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    check(cancel);
    const auto layer = static_cast<int64_t>(i);
    // In a pure prefill nothing reads the last block's output.
    const BlockParts parts{!batch.all_given, batch.any_logits || i + 1 < weights_.layers.size()};
    const auto keep = [&](const at::Tensor& key, const at::Tensor& value) {
      for (size_t n = 0; n < requests.size(); ++n) {
        const auto& [first, rows, past, unused] = batch.shares[n];
        if (requests[n].given || rows == 0) continue;
        requests[n].cache->put(layer, 0, past, key.narrow(0, first, rows));
        requests[n].cache->put(layer, 1, past, value.narrow(0, first, rows));
      }
    };
    const auto attend = [&](const at::Tensor& query) {
      std::vector<at::Tensor> attended;
      for (size_t n = 0; n < requests.size(); ++n) {
        const auto& [first, rows, past, seen] = batch.shares[n];
        if (rows == 0) continue;
        const KvCache& cache = *requests[n].cache;
        attended.push_back(attention(spec_, i, query.narrow(0, first, rows), cache.rows(layer, 0, 0, past + rows),
                                     cache.rows(layer, 1, 0, past + rows), seen));
      }
      return attended.size() == 1 ? attended[0] : at::cat(attended, 0);
    };
    x = block(spec_, weights_.layers[i], x, turns[static_cast<size_t>(spec_.layers[i].rope)], parts, keep, attend);
  }

  std::vector<at::Tensor> results;
  for (size_t n = 0; n < requests.size(); ++n) {
    auto& r = requests[n];
    const auto& [first, rows, past, unused] = batch.shares[n];
    if (r.logits == Logits::kNone || rows == 0) {
      results.emplace_back();
    } else if (r.logits == Logits::kAll) {
      results.push_back(head(spec_, weights_, x.narrow(0, first, rows)).cpu());
    } else {
      results.push_back(head(spec_, weights_, x.narrow(0, first + rows - 1, 1)).cpu());
    }
  }
  return results;
}

}  // namespace c2c
