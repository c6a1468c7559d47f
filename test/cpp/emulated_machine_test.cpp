// The emulator of GPUs itself: threads that wait for each other, values that lanes exchange, launches that are
// captured, and kernels that a device would hang at.
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "check.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/machine.cuh"

using namespace c2c;
using namespace c2c::cuda;

namespace {

template <class... Arguments>
void go(void (*kernel)(Arguments...), dim3 grid, dim3 block, size_t shared, Arguments... arguments) {
  launch("test", kernel, grid, block, shared, nullptr, false, arguments...);
}

bool fails(const std::string& words, const std::function<void()>& work) {
  try {
    work();
  } catch (const std::logic_error& error) {
    return std::string(error.what()).find(words) != std::string::npos;
  }
  return false;
}

// Each block sums its threads' numbers; odd ones leave before the block meets again.
__global__ void sums_kernel(float* out, float* later) {
  __shared__ float scratch[32];
  const float sum = block_sum(static_cast<float>(threadIdx.x + 1000 * blockIdx.y), scratch);
  out[blockIdx.y * blockDim.x + threadIdx.x] = sum;
  if (threadIdx.x >= 64) return;
  auto* shared = dynamic_shared<float>();
  const bool fresh = shared[threadIdx.x] != shared[threadIdx.x];
  __syncthreads();
  shared[threadIdx.x] = fresh ? static_cast<float>(threadIdx.x) : -1.0F;
  __syncthreads();
  later[blockIdx.y * 64 + threadIdx.x] = shared[63 - threadIdx.x];
}

// d = a · b with a[r][k] = 16 r + k and b[k][c] = k == c: columns of a.
__global__ void multiply_kernel(float* d) {
  const int lane = static_cast<int>(threadIdx.x);
  const auto word = [](float low, float high) {
    return static_cast<uint32_t>(__float2bfloat16_rn(low).bits) | static_cast<uint32_t>(__float2bfloat16_rn(high).bits)
                                                                      << 16;
  };
  const auto a = [&](int row, int k) {
    return word(static_cast<float>(16 * row + k), static_cast<float>(16 * row + k + 1));
  };
  const auto b = [&](int k, int column) { return word(k == column ? 1.0F : 0.0F, k + 1 == column ? 1.0F : 0.0F); };
  const int row = lane / 4, k = lane % 4 * 2;
  float own[4] = {};
  multiply_16x8x16(own, a(row, k), a(row + 8, k), a(row, k + 8), a(row + 8, k + 8), b(k, row), b(k + 8, row));
  for (int i = 0; i < 4; ++i) d[(row + i / 2 * 8) * 8 + k + i % 2] = own[i];
}

__global__ void gone_kernel() {
  if (threadIdx.x == 5) return;
  __syncwarp();
}

__global__ void elsewhere_kernel() {
  float x = 1.0F;
  if (threadIdx.x % 32 < 16) {
    x = __shfl_xor_sync(0xffffffffU, x, 1);
  } else {
    x = __shfl_xor_sync(0xffffffffU, x, 2);
  }
}

__global__ void hanging_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else if (threadIdx.x % 2 == 0) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

// Thread `writer` writes what thread `reader` reads, without or with a barrier between, after another one or as the
// first thing.
__global__ void unguarded_kernel(int writer, int reader, bool later, bool guarded, float what, float* out) {
  __shared__ float value;
  if (later) __syncthreads();
  if (static_cast<int>(threadIdx.x) == writer) value = what + static_cast<float>(blockIdx.x);
  if (guarded) __syncthreads();
  if (static_cast<int>(threadIdx.x) == reader) out[blockIdx.x] = value;
}

// The same in a warp alone.
__global__ void unguarded_warp_kernel(int writer, int reader, bool guarded, float what, float* out) {
  __shared__ float value;
  __syncwarp();
  if (static_cast<int>(threadIdx.x) == writer) value = what + static_cast<float>(blockIdx.x);
  if (guarded) __syncwarp();
  if (static_cast<int>(threadIdx.x) == reader) out[blockIdx.x] = value;
}

__global__ void add_kernel(float* at, float what) {
  if (threadIdx.x == 0) *at += what;
}

}  // namespace

int main() {
  run("sums of blocks, shared memory, threads that leave", [] {
    std::vector<float> out(3 * 128), later(3 * 64);
    go(sums_kernel, dim3(1, 3), dim3(128), 64 * sizeof(float), out.data(), later.data());
    bool ok = true;
    for (int block = 0; block < 3; ++block) {
      for (int i = 0; i < 128; ++i)
        ok = ok && out[static_cast<size_t>(block * 128 + i)] == 128 * 127 / 2 + 128000 * block;
      for (int i = 0; i < 64; ++i) ok = ok && later[static_cast<size_t>(block * 64 + i)] == 63 - i;
    }
    return ok;
  });
  run("a warp's product", [] {
    std::vector<float> d(16 * 8);
    go(multiply_kernel, dim3(1), dim3(32), 0, d.data());
    bool ok = true;
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 8; ++column)
        ok = ok && d[static_cast<size_t>(row * 8 + column)] == static_cast<float>(16 * row + column);
    return ok;
  });
  run("a lane that has ended", [] { return fails("has ended", [] { go(gone_kernel, dim3(1), dim3(64), 0); }); });
  run("lanes at different places",
      [] { return fails("different places", [] { go(elsewhere_kernel, dim3(1), dim3(32), 0); }); });
  run("threads that wait for ever", [] { return fails("for ever", [] { go(hanging_kernel, dim3(1), dim3(64), 0); }); });
  run("a missing barrier is seen whoever writes and reads", [] {
    float what = 0;
    for (const bool later : {false, true})
      for (const int writer : {0, 1, 31, 32, 63, 64, 127})
        for (const int reader : {0, 1, 2, 30, 31, 32, 33, 63, 64, 95, 126, 127}) {
          const auto right = [&](bool guarded) {
            std::vector<float> out(2);
            what += 3;
            go(unguarded_kernel, dim3(2), dim3(128), 0, writer, reader, later, guarded, what, out.data());
            return out[0] == what && out[1] == what + 1;
          };
          if (!right(true) || (writer != reader && right(false))) return false;
        }
    return true;
  });
  run("a missing barrier of a warp is seen whoever writes and reads", [] {
    float what = 0;
    for (int writer = 0; writer < 32; ++writer)
      for (int reader = 0; reader < 32; ++reader) {
        const auto right = [&](bool guarded) {
          std::vector<float> out(2);
          what += 3;
          go(unguarded_warp_kernel, dim3(2), dim3(32), 0, writer, reader, guarded, what, out.data());
          return out[0] == what && out[1] == what + 1;
        };
        if (!right(true) || (writer != reader && right(false))) return false;
      }
    return true;
  });
  run("a kernel runs after one that failed", [] {
    float sum = 0;
    go(add_kernel, dim3(2), dim3(32), 0, &sum, 2.0F);
    return sum == 4;
  });
  run("a graph runs when it is launched", [] {
    float sum = 0;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t made = nullptr;
    cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal);
    go(add_kernel, dim3(1), dim3(32), 0, &sum, 1.0F);
    cudaStreamEndCapture(nullptr, &graph);
    cudaGraphInstantiate(&made, graph, 0);
    cudaGraphDestroy(graph);
    const bool waited = sum == 0;
    cudaGraphLaunch(made, nullptr);
    cudaGraphLaunch(made, nullptr);
    cudaGraphExecDestroy(made);
    return waited && sum == 2;
  });
  return result();
}
