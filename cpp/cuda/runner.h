// A decoder on a CUDA device. Single rows of a few caches (a step of decode) run as one CUDA graph of the kernels that
// read each weight once; everything else on ATen's products with the kernels between them.
#pragma once
#include <map>
#include <memory>
#include <vector>

#include "cuda/step.h"
#include "kernels/cuda/kernels.h"
#include "model/runner.h"

namespace c2c::cuda {

// What kernels read of a request: its cache's runs and its rows' places, on the device.
struct DeviceRows {
  at::Tensor runs, rows, positions;  // CacheRun[], QueryRow[], uint32[]
  const QueryRow* row(int64_t index) const { return static_cast<const QueryRow*>(rows.const_data_ptr()) + index; }
};

class CudaRunner final : public Runner {
 public:
  CudaRunner(const DecoderSpec& spec, const DecoderWeights& weights, at::ScalarType dtype);
  bool fits(const DecoderWeights& weights) const override { return weight_versions(weights) == versions_; }
  int64_t bytes() const override { return p_.weights.bytes; }
  std::vector<at::Tensor> forward(std::vector<Request>& requests, const Batch& batch,
                                  const CancelFlag& cancel) override;

 private:
  std::vector<at::Tensor> run(std::vector<Request>& requests, const Batch& batch, const CancelFlag& cancel);
  // Rows' attention, [rows, heads · dim]: single rows by the kernel, longer requests by the library.
  at::Tensor attention(size_t layer, const at::Tensor& query, const std::vector<Request>& requests, const Batch& batch,
                       const DeviceRows& rows);

  const DecoderSpec& spec_;
  Parts p_;
  std::vector<int64_t> versions_;
  at::Tensor partial_, tickets_, turns_;
  std::unique_ptr<StepGraph> step_;
};

// The host's side of DeviceRows; `windows`: whether positions are needed. Runs of rows that are kept in another form
// than the arena's have no address.
struct HostRows {
  std::vector<CacheRun> runs;
  std::vector<QueryRow> rows;
  std::vector<uint32_t> positions;
  // Where rows[i].runs and rows[i].positions begin, until the arrays have their addresses.
  std::vector<size_t> run_at, position_at;
};
HostRows host_rows(const std::vector<Request>& requests, const Batch& batch, bool windows);
// Sets the addresses that the rows point to.
void set_addresses(HostRows& rows, const CacheRun* runs, const uint32_t* positions);

// Blocks for each head of a row that sees so many rows.
int64_t splits_for(int64_t rows, int64_t kv_heads, int64_t seen);
Gate gate_of(Activation activation);

}  // namespace c2c::cuda
