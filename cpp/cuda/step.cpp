#include "cuda/step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cstring>

#include "cuda/runner.h"

namespace c2c::cuda {

namespace {

constexpr int64_t kMostRuns = 128;
constexpr int64_t kMostSplits = 32;
constexpr int64_t kRowBytes = kMostRows * static_cast<int64_t>(sizeof(QueryRow));

const float* floats(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }
const void* data(const at::Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; }

}  // namespace

bool StepGraph::supports(const Parts& p) {
  const DecoderSpec& s = *p.spec;
  return !s.post_norms && attends(p.type, s.heads, s.kv_heads, s.head_dim) && s.hidden % 4 == 0 &&
         multiplies(p.type, 1, s.hidden) && multiplies(p.type, 1, s.heads * s.head_dim) &&
         multiplies(p.type, 1, s.intermediate);
}

StepGraph::StepGraph(const Parts& parts) : p_(parts) {
  const DecoderSpec& s = *p_.spec;
  const at::Device device = p_.weights.embedding.device();
  const at::TensorOptions wide = at::TensorOptions().dtype(at::kFloat).device(device), narrow = wide.dtype(p_.dtype);
  const int64_t width = s.heads * s.head_dim;
  x_ = at::empty({kMostRows, s.hidden}, wide);
  inputs_ = at::empty({kMostRows, width + 2 * s.kv_heads * s.head_dim}, wide);
  turns_ = at::empty({static_cast<int64_t>(s.ropes.size()), kMostRows, s.head_dim}, wide);
  attended_ = at::empty({kMostRows, width}, narrow);
  activated_ = at::empty({kMostRows, s.intermediate}, narrow);
  logits_ = at::empty({kMostRows, s.vocab}, wide);
  partial_ = at::empty({attend_scratch(kMostRows, s.heads, s.head_dim, kMostSplits)}, wide);
  tickets_ = at::zeros({kMostRows * s.kv_heads}, wide.dtype(at::kInt));
  const int64_t bytes = kRowBytes + kMostRuns * static_cast<int64_t>(sizeof(CacheRun));
  state_ = at::empty({bytes}, wide.dtype(at::kByte));
  host_state_ = at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(device.is_cuda()));
  stream_ = c10::cuda::getStreamFromPool(false, device.index());
  C10_CUDA_CHECK(cudaEventCreateWithFlags(&ready_, cudaEventDisableTiming));
  int major = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index()));
  overlap_ = major >= 9;
}

StepGraph::~StepGraph() {
  cudaStreamSynchronize(stream_);
  for (const auto& [key, graph] : graphs_)
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  cudaEventDestroy(ready_);
}

bool StepGraph::takes(const std::vector<Request>& requests, const Batch& batch) const {
  const DecoderSpec& s = *p_.spec;
  const int64_t rows = batch.rows();
  if (rows > kMostRows || static_cast<int64_t>(requests.size()) != rows || !multiplies(p_.type, rows, s.hidden) ||
      !multiplies(p_.type, rows, s.heads * s.head_dim) || !multiplies(p_.type, rows, s.intermediate))
    return false;
  size_t runs = 0;
  for (size_t n = 0; n < requests.size(); ++n) {
    const Share& share = batch.shares[n];
    if (share.rows != 1 || requests[n].logits == Logits::kNone) return false;
    const KvCache& cache = *requests[n].cache;
    runs += cache.segments().size();
    for (const Segment& segment : cache.segments())
      if (segment.block->stored() != nullptr) return false;
    if (share.positions.empty()) continue;
    const auto [low, high] = std::minmax_element(share.positions.begin(), share.positions.end());
    for (const LayerSpec& layer : s.layers)
      if (layer.window > 0 && int64_t{*high} - int64_t{*low} >= layer.window) return false;
  }
  return runs <= static_cast<size_t>(kMostRuns);
}

at::Tensor StepGraph::run(const std::vector<Request>& requests, const Batch& batch) {
  const DecoderSpec& s = *p_.spec;
  HostRows host = host_rows(requests, batch, false);
  auto* device_state = static_cast<std::byte*>(state_.data_ptr());
  set_addresses(host, reinterpret_cast<const CacheRun*>(device_state + kRowBytes), nullptr);
  auto* staged = static_cast<std::byte*>(host_state_.data_ptr());
  std::memcpy(staged, host.rows.data(), host.rows.size() * sizeof(QueryRow));
  std::memcpy(staged + kRowBytes, host.runs.data(), host.runs.size() * sizeof(CacheRun));
  int64_t seen = 0;
  for (const QueryRow& row : host.rows) seen = std::max<int64_t>(seen, row.seen);
  const int64_t rows = batch.rows(), splits = splits_for(rows, s.kv_heads, seen);

  C10_CUDA_CHECK(cudaEventRecord(ready_, c10::cuda::getCurrentCUDAStream()));
  C10_CUDA_CHECK(cudaStreamWaitEvent(stream_, ready_, 0));
  C10_CUDA_CHECK(
      cudaMemcpyAsync(device_state, staged, static_cast<size_t>(state_.numel()), cudaMemcpyHostToDevice, stream_));
  const auto found = graphs_.find({rows, splits});
  if (found == graphs_.end()) {
    enqueue(rows, splits);
    graphs_.emplace(std::pair{rows, splits}, nullptr);
  } else {
    if (found->second == nullptr) found->second = capture(rows, splits);
    C10_CUDA_CHECK(cudaGraphLaunch(found->second, stream_));
  }
  const bool pinned = state_.is_cuda();
  at::Tensor logits = at::empty({rows, s.vocab}, at::TensorOptions().dtype(at::kFloat).pinned_memory(pinned));
  C10_CUDA_CHECK(
      cudaMemcpyAsync(logits.data_ptr(), logits_.const_data_ptr(), logits.nbytes(), cudaMemcpyDeviceToHost, stream_));
  C10_CUDA_CHECK(cudaStreamSynchronize(stream_));
  if (s.logit_softcap > 0) logits = at::tanh(logits / s.logit_softcap) * s.logit_softcap;
  return logits;
}

cudaGraphExec_t StepGraph::capture(int64_t rows, int64_t splits) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t made = nullptr;
  C10_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  try {
    enqueue(rows, splits);
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  C10_CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
  const cudaError_t result = cudaGraphInstantiate(&made, graph, 0);
  cudaGraphDestroy(graph);
  C10_CUDA_CHECK(result);
  return made;
}

void StepGraph::enqueue(int64_t rows, int64_t splits) {
  const DecoderSpec& s = *p_.spec;
  const auto* at = static_cast<const QueryRow*>(state_.const_data_ptr());
  const float eps = static_cast<float>(s.norm_eps);
  const int64_t width = s.heads * s.head_dim, kv_width = s.kv_heads * s.head_dim;
  embed(p_.type, p_.weights.embedding.const_data_ptr(), p_.embedding_scale, at, rows, s.hidden, x_.data_ptr<float>(),
        stream_);
  const auto turns = [&](int64_t rope) { return turns_.data_ptr<float>() + rope * kMostRows * s.head_dim; };
  for (size_t rope = 0; rope < s.ropes.size(); ++rope)
    angles(floats(p_.frequencies[rope]), at, rows, s.head_dim, turns(static_cast<int64_t>(rope)), stream_);
  RowProduct base;
  base.type = p_.type;
  base.rows = rows;
  base.eps = eps;
  base.overlap = overlap_;
  const auto multiply = [&](RowProduct r, std::initializer_list<const Linear*> parts) {
    r.count = 0;
    for (const Linear* part : parts) {
      r.weights[r.count] = part->weight.const_data_ptr();
      r.biases[r.count] = data(part->bias);
      r.outputs[r.count++] = part->weight.size(0);
    }
    row_product(r, stream_);
  };
  const auto of_normed = [&](const at::Tensor& norm, Then then, void* out, int64_t stride) {
    RowProduct r = base;
    r.in = s.hidden;
    r.x = x_.const_data_ptr<float>();
    r.norm = floats(norm);
    r.then = then;
    r.activation = gate_of(s.activation);
    r.out = out;
    r.out_stride = stride;
    return r;
  };
  const auto added = [&](const at::Tensor& input, int64_t in) {
    RowProduct r = base;
    r.in = in;
    r.input = input.const_data_ptr();
    r.then = Then::kAdd;
    r.out = x_.data_ptr();
    r.out_stride = s.hidden;
    return r;
  };
  const Linear head{p_.weights.head, {}};
  for (size_t i = 0; i < p_.weights.layers.size(); ++i) {
    const Layer& l = p_.weights.layers[i];
    const Norms& n = p_.norms[i];
    multiply(of_normed(n.input, Then::kStore, inputs_.data_ptr(), width + 2 * kv_width), {&l.query, &l.key, &l.value});
    Attend a;
    static_cast<HeadTurn&>(a) = heads_of(p_, i);
    a.turns = turns(s.layers[i].rope);
    a.type = p_.type;
    a.inputs = inputs_.const_data_ptr<float>();
    a.at = at;
    a.rows = rows;
    a.layer = static_cast<int64_t>(i);
    a.window = 0;
    a.scale = static_cast<float>(s.query_scale);
    a.splits = splits;
    a.partial = partial_.data_ptr<float>();
    a.tickets = reinterpret_cast<uint32_t*>(tickets_.data_ptr<int32_t>());
    a.out = attended_.data_ptr();
    a.overlap = overlap_;
    attend(a, stream_);
    multiply(added(attended_, width), {&l.output});
    multiply(of_normed(n.attention, Then::kGate, activated_.data_ptr(), s.intermediate), {&l.gate, &l.up});
    multiply(added(activated_, s.intermediate), {&l.down});
  }
  multiply(of_normed(p_.final_norm, Then::kStore, logits_.data_ptr(), s.vocab), {&head});
}

}  // namespace c2c::cuda
