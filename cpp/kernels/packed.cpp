#include "kernels/packed.h"

#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>

#include "core/error.h"
#include "core/pages.h"
#include "weights/mapping.h"

namespace c2c {

namespace {

// A run of outputs of one tensor that fills lanes of one block.
struct Run {
  size_t weight;
  int64_t row, count, lane;
};

int64_t blocks_of(int64_t out, int64_t per_block) { return (out + per_block - 1) / per_block; }

// What lies in each block, block by block.
std::vector<std::vector<Run>> plan(const PackSource& source) {
  std::vector<std::vector<Run>> blocks;
  if (source.paired) {
    constexpr int64_t kHalf = kBlock / 2;
    const int64_t out = source.weights[0].size(0);
    for (int64_t row = 0; row < out; row += kHalf) {
      const int64_t count = std::min(kHalf, out - row);
      blocks.push_back({{0, row, count, 0}, {1, row, count, kHalf}});
    }
    return blocks;
  }
  for (size_t w = 0; w < source.weights.size(); ++w) {
    const int64_t out = source.weights[w].size(0);
    for (int64_t row = 0; row < out; row += kBlock) blocks.push_back({{w, row, std::min(kBlock, out - row), 0}});
  }
  return blocks;
}

// A tensor whose rows the kernels can read in place.
at::Tensor readable(const at::Tensor& weight) {
  const bool known = weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kBFloat16;
  const at::Tensor plain = known ? weight : weight.to(at::kFloat);
  return plain.stride(1) == 1 ? plain : plain.contiguous();
}

}  // namespace

PackedWeights::~PackedWeights() {
  if (memory_ != nullptr) ::munmap(memory_, mapped_);
}

void PackedWeights::add(PackSource source, Packed* target) {
  const int64_t in = source.weights[0].size(1);
  int64_t blocks = 0;
  if (source.paired) {
    blocks = blocks_of(source.weights[0].size(0), kBlock / 2);
  } else {
    for (const auto& weight : source.weights) blocks += blocks_of(weight.size(0), kBlock);
  }
  const bool biased =
      std::any_of(source.biases.begin(), source.biases.end(), [](const at::Tensor& b) { return b.defined(); });
  *target = {source.store, in, blocks, nullptr, nullptr};
  const size_t at = size_;
  size_ += static_cast<size_t>(blocks * block_bytes(source.store, in));
  const size_t bias_at = biased ? size_ : 0;
  if (biased) size_ += static_cast<size_t>(blocks * kBlock) * sizeof(float);
  items_.push_back({std::move(source), target, at, bias_at});
}

void PackedWeights::pack() {
  if (size_ == 0) return;
  mapped_ = size_ + kLargePage;
  void* memory = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error("OUT_OF_MEMORY", "no memory for " + std::to_string(size_) + " bytes of packed weights",
                {{"requested", static_cast<double>(size_)}, {"device", std::string("cpu")}});
  }
  memory_ = static_cast<std::byte*>(memory);
  ask_for_large_pages(memory_, mapped_);  // weights are read front to back once a token
  const auto address = reinterpret_cast<uintptr_t>(memory_);
  std::byte* start = memory_ + (size_ >= kLargePage ? (kLargePage - address % kLargePage) % kLargePage : 0);
  for (Item& item : items_) {
    const PackSource& source = item.source;
    std::vector<at::Tensor> rows;
    for (const auto& weight : source.weights) rows.push_back(readable(weight));
    const auto blocks = plan(source);
    std::byte* data = start + item.at;
    const int64_t in = item.target->in, bytes = block_bytes(source.store, in);
    at::parallel_for(0, static_cast<int64_t>(blocks.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        for (const Run& run : blocks[static_cast<size_t>(b)]) {
          const at::Tensor& weight = rows[run.weight];
          const auto* first = static_cast<const std::byte*>(weight.const_data_ptr()) +
                              run.row * weight.stride(0) * static_cast<int64_t>(weight.element_size());
          kernels().pack(source.store, data + b * bytes, in, first, weight.scalar_type() == at::kBFloat16,
                         weight.stride(0), run.count, run.lane, in, 0);
        }
      }
    });
    item.target->data = data;
    if (item.bias_at != 0) {
      auto* bias = reinterpret_cast<float*>(start + item.bias_at);
      for (size_t b = 0; b < blocks.size(); ++b) {
        for (const Run& run : blocks[b]) {
          if (!source.biases[run.weight].defined()) continue;
          const at::Tensor values = source.biases[run.weight].narrow(0, run.row, run.count).to(at::kFloat).contiguous();
          std::copy_n(values.const_data_ptr<float>(), run.count, bias + b * kBlock + static_cast<size_t>(run.lane));
        }
      }
      item.target->bias = bias;
    }
    for (const auto& weight : source.weights) drop_pages(weight);
    item.source = {};
  }
  items_.clear();
}

}  // namespace c2c
