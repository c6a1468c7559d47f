#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>

#include "cuda/cuda.h"

namespace c2c::cuda {

namespace {

class Event {
 public:
  Event() { C10_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }
  void record(cudaStream_t stream) { C10_CUDA_CHECK(cudaEventRecord(event_, stream)); }
  void hold(cudaStream_t stream) { C10_CUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0)); }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

void side_by_side(at::Device device, const std::vector<std::function<void()>>& jobs) {
  if (!device.is_cuda() || jobs.size() < 2) {
    for (const auto& job : jobs) job();
    return;
  }
  const c10::cuda::CUDAGuard guard(device);
  const auto current = c10::cuda::getCurrentCUDAStream();
  Event begun;
  begun.record(current);
  std::exception_ptr failed;
  for (const auto& job : jobs) {
    const auto stream = c10::cuda::getStreamFromPool(false, device.index());
    begun.hold(stream);
    try {
      const c10::cuda::CUDAStreamGuard on(stream);
      job();
    } catch (...) {
      if (!failed) failed = std::current_exception();
    }
    // What it has submitted is waited for even where it failed: its memory goes back to others.
    Event ended;
    ended.record(stream);
    ended.hold(current);
  }
  if (failed) std::rethrow_exception(failed);
}

}  // namespace c2c::cuda
