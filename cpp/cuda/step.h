// A step of decode as one CUDA graph: a row for each of a few caches, through kernels that read every weight once. The
// graph depends on the number of rows and on how their attention is cut; what changes from token to token lies in
// memory that it reads.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "model/runner.h"

using cudaGraphExec_t = struct CUgraphExec_st*;
using cudaEvent_t = struct CUevent_st*;

namespace c2c::cuda {

// A layer's norm weights in float32 with the spec's offset; undefined where there are none.
struct Norms {
  at::Tensor input, attention, feed, feed_post, query, key;
};

// What all ways of running a decoder need of it.
struct Parts {
  const DecoderSpec* spec;
  DecoderWeights weights;
  at::ScalarType dtype;
  Type type;
  std::vector<Norms> norms;
  at::Tensor final_norm;
  std::vector<at::Tensor> frequencies;  // of each rope, float32
  float embedding_scale;                // rounded as the dtype has it
};

// The shape, norms and epsilon of a layer's heads; turns are the caller's.
HeadTurn heads_of(const Parts& parts, size_t layer);

class StepGraph {
 public:
  // Whether a decoder's shape has the kernels. `parts` must outlive this.
  static bool supports(const Parts& parts);
  explicit StepGraph(const Parts& parts);
  StepGraph(const StepGraph&) = delete;
  StepGraph& operator=(const StepGraph&) = delete;
  ~StepGraph();

  // Whether the batch is such a step: a row and its logits for each request, plain caches of few segments, and no
  // window that hides anything.
  bool takes(const std::vector<Request>& requests, const Batch& batch) const;
  // Logits [rows, vocab] on the CPU. The caches' new rows are written.
  at::Tensor run(const std::vector<Request>& requests, const Batch& batch);

 private:
  void enqueue(int64_t rows, int64_t splits);
  cudaGraphExec_t capture(int64_t rows, int64_t splits);

  const Parts& p_;
  bool overlap_;  // the device starts kernels while the one before ends
  at::Tensor x_, inputs_, turns_, attended_, activated_, logits_, partial_, tickets_;
  at::Tensor state_, host_state_;  // rows, then runs
  cudaStream_t stream_;
  cudaEvent_t ready_;
  // By rows and splits. The first step of a kind runs as it is: what kernels need is loaded then.
  std::map<std::pair<int64_t, int64_t>, cudaGraphExec_t> graphs_;
};

}  // namespace c2c::cuda
