#include "weights/tensor_table.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <memory>

#include "core/system.h"
#include "weights/mapping.h"

namespace c2c {

namespace {

constexpr size_t kMaxRank = 8;  // libtorch's operators take 64; weights have at most two

at::ScalarType scalar_type(const std::string& name, const std::string& file) {
  if (name == "F32") return at::kFloat;
  if (name == "BF16") return at::kBFloat16;
  if (name == "F16") return at::kHalf;
  if (name == "F64") return at::kDouble;
  file_invalid(file, "unknown dtype " + name);
}

}  // namespace

std::unordered_map<std::string, at::Tensor> map_tensors(const TensorTable& table, std::optional<at::ScalarType> dtype) {
  std::vector<std::shared_ptr<Mapping>> maps;
  for (const auto& file : table.files) maps.push_back(std::make_shared<Mapping>(file));
  std::unordered_map<std::string, at::Tensor> tensors;
  for (const auto& entry : table.tensors) {
    if (entry.file < 0 || entry.file >= static_cast<int64_t>(maps.size()))
      file_invalid(entry.name, "no such file index");
    const auto& map = maps[static_cast<size_t>(entry.file)];
    const auto& file = table.files[static_cast<size_t>(entry.file)];
    const at::ScalarType type = scalar_type(entry.dtype, file);
    const int64_t item = static_cast<int64_t>(c10::elementSize(type));
    if (entry.shape.size() > kMaxRank) file_invalid(file, "too many dimensions in " + entry.name);
    // Strides count an empty dimension as one, so they may overflow where the number of elements does not.
    int64_t count = 1, stride = item;
    for (const int64_t size : entry.shape) {
      if (size < 0 || __builtin_mul_overflow(count, size, &count) ||
          __builtin_mul_overflow(stride, std::max<int64_t>(size, 1), &stride)) {
        file_invalid(file, "impossible shape of " + entry.name);
      }
    }
    int64_t bytes = 0;
    if (__builtin_mul_overflow(count, item, &bytes) || entry.begin < 0 || entry.end < entry.begin ||
        entry.end - entry.begin != bytes || entry.end > static_cast<int64_t>(map->size())) {
      file_invalid(file, "tensor " + entry.name + " does not fit the file");
    }
    // Tensors are not written to: weights are the files' own bytes.
    char* at_begin = const_cast<char*>(reinterpret_cast<const char*>(map->data())) + entry.begin;
    const bool aligned = reinterpret_cast<uintptr_t>(at_begin) % static_cast<uintptr_t>(item) == 0;
    at::Tensor tensor;
    if (aligned) {
      auto keep = map;
      tensor = at::from_blob(
          at_begin, entry.shape, [keep](void*) {}, at::TensorOptions().dtype(type));
    } else {
      // torch.save may lay storages at odd addresses: copy bytes first.
      auto copy = std::shared_ptr<char[]>(new char[static_cast<size_t>(bytes) + 1]);
      std::copy_n(at_begin, bytes, copy.get());
      tensor = at::from_blob(
          copy.get(), entry.shape, [copy](void*) {}, at::TensorOptions().dtype(type));
    }
    if (!tensors.emplace(entry.name, dtype ? tensor.to(*dtype) : tensor).second)
      file_invalid(file, "tensor " + entry.name + " appears twice");
  }
  return tensors;
}

}  // namespace c2c
