// Memory that one pass after another reuses, so that nothing is allocated, page-faulted or zeroed anew for each token.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/pages.h"

namespace c2c {

class Workspace {
 public:
  // Buffer `slot`, of at least `bytes` bytes. What was written stays as long as no larger one is asked for; new memory
  // is zero. A slot that keeps its row width keeps its zero padding.
  template <class T = std::byte>
  T* get(size_t slot, int64_t bytes) {
    if (slot >= buffers_.size()) buffers_.resize(slot + 1);
    at::Tensor& buffer = buffers_[slot];
    if (!buffer.defined() || buffer.numel() < bytes) {
      const int64_t size = std::max(bytes, buffer.defined() ? buffer.numel() * 5 / 4 : int64_t{4096});
      buffer = at::Tensor();  // the old one goes first
      buffer = at::empty({size}, at::TensorOptions().dtype(at::kByte));
      ask_for_large_pages(buffer.data_ptr(), buffer.nbytes());
      buffer.zero_();
    }
    return reinterpret_cast<T*>(buffer.data_ptr());
  }
  // Lets buffers go that are larger than `bytes`.
  void trim(int64_t bytes) {
    for (at::Tensor& buffer : buffers_)
      if (buffer.defined() && buffer.numel() > bytes) buffer = at::Tensor();
  }

 private:
  std::vector<at::Tensor> buffers_;
};

}  // namespace c2c
