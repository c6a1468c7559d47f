// A file in memory, read-only, for as long as anything made of it lives.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace c2c {

class Mapping {
 public:
  // IO_FAILED.
  explicit Mapping(const std::string& path);
  // An open file, which may be closed afterwards; `path` names it in errors.
  Mapping(int file, const std::string& path);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const std::byte* data() const { return static_cast<const std::byte*>(data_); }
  size_t size() const { return size_; }

 private:
  void map(int file, const std::string& path);
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Lets the memory of a mapped tensor go; it is read from the file again when touched. Other tensors stay as they are.
void drop_pages(const at::Tensor& tensor);

}  // namespace c2c
