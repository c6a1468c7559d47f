#include "cuda/runner.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <tuple>

#include "cuda/cuda.h"
#include "model/blocks.h"

namespace c2c::cuda {

namespace {

// Bytes brought to the device in the current stream's order.
at::Tensor to_device(const void* from, size_t bytes, at::Device device) {
  if (bytes == 0) return {};
  const at::Tensor host = at::from_blob(const_cast<void*>(from), {static_cast<int64_t>(bytes)}, at::kByte);
  return host.to(device);
}

// One weight of several that lie below each other in memory (see stack_weights); undefined where they do not.
at::Tensor stacked(const std::vector<at::Tensor>& parts) {
  const at::Tensor& first = parts[0];
  if (!first.defined()) return {};
  const auto* next = static_cast<const std::byte*>(first.const_data_ptr());
  std::vector<int64_t> sizes = first.sizes().vec();
  sizes[0] = 0;
  for (const at::Tensor& part : parts) {
    // One storage too: what lies behind another's end may be anybody's.
    if (!part.defined() || !part.is_contiguous() || !part.is_alias_of(first) || part.const_data_ptr() != next)
      return {};
    next += part.nbytes();
    sizes[0] += part.size(0);
  }
  return first.as_strided(sizes, first.strides());
}

// What x becomes by several weights, in one product where they lie below each other.
std::vector<at::Tensor> products(const std::vector<const Linear*>& parts, const at::Tensor& x) {
  std::vector<at::Tensor> weights, biases, made;
  for (const Linear* part : parts) {
    weights.push_back(part->weight);
    biases.push_back(part->bias);
  }
  const Linear all{stacked(weights), stacked(biases)};
  if (all.weight.defined() && all.bias.defined() == biases[0].defined()) {
    const at::Tensor rows = all(x);
    int64_t at = 0;
    for (const Linear* part : parts) {
      made.push_back(rows.narrow(1, at, part->weight.size(0)));
      at += part->weight.size(0);
    }
    return made;
  }
  for (const Linear* part : parts) made.push_back((*part)(x));
  return made;
}

// Query, key and value; undefined what is not wanted.
std::tuple<at::Tensor, at::Tensor, at::Tensor> inputs_of(const Layer& l, const at::Tensor& x, bool queries, bool keys) {
  if (!keys) return {l.query(x), {}, {}};
  const auto made = queries ? products({&l.query, &l.key, &l.value}, x) : products({&l.key, &l.value}, x);
  return {queries ? made[0] : at::Tensor(), made[made.size() - 2], made.back()};
}

std::pair<at::Tensor, at::Tensor> gates_of(const Layer& l, const at::Tensor& x) {
  const auto made = products({&l.gate, &l.up}, x);
  return {made[0], made[1]};
}

const float* floats(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }

}  // namespace

CudaRunner::CudaRunner(const DecoderSpec& spec, const DecoderWeights& weights, at::ScalarType dtype)
    : spec_(spec), versions_(weight_versions(weights)) {
  const at::NoGradGuard no_grad;
  p_.spec = &spec_;
  p_.weights = weights;
  p_.dtype = dtype;
  p_.type = dtype == at::kBFloat16 ? Type::kBf16 : Type::kFloat;
  const auto norm = [&](const at::Tensor& w) {
    return w.defined() ? (w.detach().to(at::kFloat) + spec.norm_offset).contiguous() : at::Tensor();
  };
  for (const Layer& l : weights.layers)
    p_.norms.push_back({norm(l.input_norm), norm(l.attention_norm), norm(l.feed_norm), norm(l.feed_post_norm),
                        norm(l.query_norm), norm(l.key_norm)});
  p_.final_norm = norm(weights.final_norm);
  for (const auto& rope : spec.ropes)
    p_.frequencies.push_back(at::tensor(rope, at::kDouble).to(weights.embedding.device(), at::kFloat));
  p_.embedding_scale = static_cast<float>(spec.embedding_scale);
  if (dtype == at::kBFloat16) p_.embedding_scale = static_cast<float>(c10::BFloat16(p_.embedding_scale));
  const c10::cuda::CUDAGuard guard(weights.embedding.device());
  if (StepGraph::supports(p_)) step_ = std::make_unique<StepGraph>(p_);
}

std::vector<at::Tensor> CudaRunner::forward(std::vector<Request>& requests, const Batch& batch,
                                            const CancelFlag& cancel) {
  // Nothing here is differentiated: autograd is not even asked.
  const at::AutoDispatchBelowAutograd below;
  const c10::cuda::CUDAGuard guard(p_.weights.embedding.device());
  if (step_ && step_->takes(requests, batch)) return split_logits(step_->run(requests, batch), requests, batch);
  return run(requests, batch, cancel);
}

at::Tensor CudaRunner::attention(size_t layer, const at::Tensor& query, const std::vector<Request>& requests,
                                 const Batch& batch, const DeviceRows& rows) {
  const int64_t width = spec_.heads * spec_.head_dim;
  const auto by_library = [&](size_t n) {
    const Share& share = batch.shares[n];
    const KvCache& cache = *requests[n].cache;
    const int64_t seen = share.past + share.rows, at = static_cast<int64_t>(layer);
    const at::Tensor heads = query.narrow(0, share.first, share.rows).view({share.rows, spec_.heads, spec_.head_dim});
    return c2c::attention(spec_, layer, heads, cache.rows(at, 0, 0, seen), cache.rows(at, 1, 0, seen), share.positions);
  };
  if (requests.size() == 1 && batch.rows() > 1) return by_library(0);
  const at::Tensor out = at::empty({batch.rows(), width}, query.options());
  const bool kernel = attends(p_.type, spec_.heads, spec_.kv_heads, spec_.head_dim);
  const auto single = [&](size_t n) {
    const auto& segments = requests[n].cache->segments();
    return kernel && batch.shares[n].rows == 1 && std::none_of(segments.begin(), segments.end(), [](const Segment& s) {
             return s.block->stored() != nullptr;
           });
  };
  // Rows of the batch that stand together and are single ones of their requests.
  for (size_t n = 0, end; n < requests.size(); n = end) {
    end = n + 1;
    const Share& share = batch.shares[n];
    if (share.rows == 0) continue;
    if (!single(n)) {
      out.narrow(0, share.first, share.rows).copy_(by_library(n));
      continue;
    }
    int64_t count = 1, seen = share.past + 1;
    for (; end < requests.size() && single(end); ++end, ++count) seen = std::max(seen, batch.shares[end].past + 1);
    Attend p;
    static_cast<HeadTurn&>(p) = heads_of(p_, layer);
    p.type = p_.type;
    const auto item = static_cast<int64_t>(query.element_size());
    p.query_stride = query.stride(0);
    p.query = static_cast<const std::byte*>(query.const_data_ptr()) + share.first * p.query_stride * item;
    p.out = static_cast<std::byte*>(out.data_ptr()) + share.first * width * item;
    p.at = rows.row(share.first);
    p.rows = count;
    p.layer = static_cast<int64_t>(layer);
    // Rows' positions are there where any layer has a window; this one may have none.
    p.window = spec_.layers[layer].window > 0 ? spec_.layers[layer].window : INT64_MAX;
    p.scale = static_cast<float>(spec_.query_scale);
    p.splits = splits_for(count, spec_.kv_heads, seen);
    const int64_t scratch = attend_scratch(count, spec_.heads, spec_.head_dim, p.splits);
    if (!partial_.defined() || partial_.numel() < scratch)
      partial_ = at::empty({std::max<int64_t>(scratch, 1)}, query.options().dtype(at::kFloat));
    if (!tickets_.defined() || tickets_.numel() < count * spec_.kv_heads)
      tickets_ = at::zeros({count * spec_.kv_heads}, query.options().dtype(at::kInt));
    p.partial = partial_.data_ptr<float>();
    p.tickets = reinterpret_cast<uint32_t*>(tickets_.data_ptr<int32_t>());
    attend(p, c10::cuda::getCurrentCUDAStream());
  }
  return out;
}

std::vector<at::Tensor> CudaRunner::run(std::vector<Request>& requests, const Batch& batch, const CancelFlag& cancel) {
  const at::Device device = p_.weights.embedding.device();
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const int64_t count = batch.rows();
  const bool windows =
      std::any_of(spec_.layers.begin(), spec_.layers.end(), [](const LayerSpec& l) { return l.window > 0; });
  HostRows host = host_rows(requests, batch, windows);
  DeviceRows rows;
  rows.runs = to_device(host.runs.data(), host.runs.size() * sizeof(CacheRun), device);
  rows.positions = to_device(host.positions.data(), host.positions.size() * sizeof(uint32_t), device);
  set_addresses(host, static_cast<const CacheRun*>(rows.runs.const_data_ptr()),
                rows.positions.defined() ? static_cast<const uint32_t*>(rows.positions.const_data_ptr()) : nullptr);
  rows.rows = to_device(host.rows.data(), host.rows.size() * sizeof(QueryRow), device);

  const at::TensorOptions wide = at::TensorOptions().dtype(at::kFloat).device(device), narrow = wide.dtype(p_.dtype);
  const at::Tensor x = at::empty({count, spec_.hidden}, wide);
  embed(p_.type, p_.weights.embedding.const_data_ptr(), p_.embedding_scale, rows.row(0), count, spec_.hidden,
        x.data_ptr<float>(), stream);

  const at::Tensor turns = at::empty({static_cast<int64_t>(spec_.ropes.size()), count, spec_.head_dim}, wide);
  for (size_t rope = 0; rope < spec_.ropes.size(); ++rope)
    angles(floats(p_.frequencies[rope]), rows.row(0), count, spec_.head_dim,
           turns.select(0, static_cast<int64_t>(rope)).data_ptr<float>(), stream);

  at::Tensor delta;  // what the last products add to x
  const float* delta_norm = nullptr;
  const auto normed = [&](const at::Tensor& weight, const at::Tensor& pick) {
    const at::Tensor out = at::empty({pick.defined() ? pick.numel() : count, spec_.hidden}, narrow);
    AddNorm p;
    p.type = p_.type;
    p.x = x.data_ptr<float>();
    p.delta = delta.defined() ? delta.const_data_ptr() : nullptr;
    p.delta_norm = delta_norm;
    p.weight = floats(weight);
    p.out = out.data_ptr();
    p.rows = out.size(0);
    p.width = spec_.hidden;
    p.eps = static_cast<float>(spec_.norm_eps);
    p.pick = pick.defined() ? pick.const_data_ptr<int32_t>() : nullptr;
    add_norm(p, stream);
    return out;
  };

  for (size_t i = 0; i < p_.weights.layers.size(); ++i) {
    check(cancel);
    const Layer& l = p_.weights.layers[i];
    const Norms& n = p_.norms[i];
    // In a pure prefill nothing reads the last block's output.
    const bool output = batch.any_logits || i + 1 < p_.weights.layers.size();
    at::Tensor in = normed(n.input, {});
    const auto [query, key, value] = inputs_of(l, in, output, !batch.all_given);
    Turn t;
    static_cast<HeadTurn&>(t) = heads_of(p_, i);
    t.turns = turns.select(0, spec_.layers[i].rope).const_data_ptr<float>();
    t.type = p_.type;
    t.query = query.defined() ? query.data_ptr() : nullptr;
    t.key = key.defined() ? key.const_data_ptr() : nullptr;
    t.value = value.defined() ? value.const_data_ptr() : nullptr;
    t.query_stride = query.defined() ? query.stride(0) : 0;
    t.kv_stride = key.defined() ? key.stride(0) : 0;
    t.at = rows.row(0);
    t.rows = count;
    t.layer = static_cast<int64_t>(i);
    turn(t, stream);
    if (!output) break;
    delta = l.output(attention(i, query, requests, batch, rows));
    delta_norm = spec_.post_norms ? floats(n.attention) : nullptr;
    in = normed(spec_.post_norms ? n.feed : n.attention, {});
    const auto [gate, up] = gates_of(l, in);
    const at::Tensor active = at::empty({count, spec_.intermediate}, narrow);
    gated({p_.type, gate_of(spec_.activation), gate.const_data_ptr(), up.const_data_ptr(), active.data_ptr(), count,
           spec_.intermediate, gate.stride(0)},
          stream);
    delta = l.down(active);
    delta_norm = spec_.post_norms ? floats(n.feed_post) : nullptr;
  }
  const auto wanted = wanted_rows(requests, batch);
  if (wanted.empty()) return std::vector<at::Tensor>(requests.size());
  const at::Tensor pick = at::tensor(std::vector<int32_t>(wanted.begin(), wanted.end()), at::kInt).to(device);
  at::Tensor logits = at::linear(normed(p_.final_norm, pick), p_.weights.head).to(at::kFloat);
  if (spec_.logit_softcap > 0) logits = at::tanh(logits / spec_.logit_softcap) * spec_.logit_softcap;
  return split_logits(logits.cpu(), requests, batch);
}

std::unique_ptr<Runner> make_runner(const DecoderSpec& spec, const DecoderWeights& weights, at::ScalarType dtype) {
  if (!weights.embedding.is_cuda() || (dtype != at::kFloat && dtype != at::kBFloat16)) return nullptr;
  return std::make_unique<CudaRunner>(spec, weights, dtype);
}

bool compiled() { return true; }

}  // namespace c2c::cuda
