// Kernels for GPUs on a processor: the threads of a block are fibers of one thread, which wait for each other where a
// kernel says so. Blocks run one after the other, and so do launches. What a device would do something undefined for is
// an error here: lanes that are gone or elsewhere while their warp exchanges values, and threads that wait for ever.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1) : x(width), y(height), z(depth) {}
};

// Of the thread that runs now; blocks have one dimension.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace emulated {

constexpr size_t kLane = 64;  // most bytes that a lane gives

// What each lane of a warp gave, until the warp's next exchange but one.
struct Lanes {
  const std::byte* slots;
  template <class T>
  T of(int lane) const {
    T value;
    std::memcpy(&value, slots + static_cast<size_t>(lane) * kLane, sizeof value);
    return value;
  }
};

// Runs `thread` for each thread of each block, with so many bytes of shared memory, which begin as NaNs. (What kernels
// declare themselves begins as the block before left it.)
void run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread);

void* dynamic_shared();
// All threads of the block that have not ended.
void sync_block();
// All lanes of the warp, each from the same line of code.
Lanes exchange(const void* own, size_t bytes, unsigned line);

// A graph holds the launches that a stream was given while it was captured.
using Graph = std::vector<std::function<void()>>;
void submit(std::function<void()> launch);  // runs it, or puts it into the graph that is captured
void begin_capture();
bool capturing();
Graph end_capture();
void play(const Graph& graph);
size_t played();  // graphs, so far

}  // namespace emulated
