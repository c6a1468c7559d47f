// Tensors as they lie in files. JavaScript reads the headers (text); this maps the files and makes the tensors.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace c2c {

struct TensorEntry {
  std::string name, dtype;
  std::vector<int64_t> shape;
  int64_t file = 0, begin = 0, end = 0;
};

struct TensorTable {
  std::vector<std::string> files;
  std::vector<TensorEntry> tensors;
};

// Maps the files read-only and returns the tensors by name, as `dtype` (absent: as they
// are in the files). Tensors of that dtype stay mapped (and keep the
// map alive) where their address is aligned; others are converted or copied. FILE_INVALID where an entry does not fit
// its file, IO_FAILED where a file cannot be opened.
std::unordered_map<std::string, at::Tensor> map_tensors(const TensorTable& table, std::optional<at::ScalarType> dtype);

}  // namespace c2c
