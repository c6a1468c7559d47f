// Any table over any files: map_tensors gives exactly the files' bytes or a typed error, and never reads past an end.
// Input: wanted dtype, files, their sizes (u16 each), entries, then each entry (name, dtype, rank, dims, file, begin,
// end), and what is left is the content that the files are cut from.
#include <ATen/ops/empty.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "bytes.h"
#include "core/error.h"
#include "weights/tensor_table.h"

using namespace c2c;

namespace {

// A file in memory under a name that open() takes.
class MemoryFile {
 public:
  explicit MemoryFile(std::string content) : content_(std::move(content)), fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    if (fd_ < 0 || ::write(fd_, content_.data(), content_.size()) != static_cast<ssize_t>(content_.size()))
      std::abort();
  }
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }
  const std::string& content() const { return content_; }

 private:
  std::string content_;
  int fd_;
};

void expect(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

// The tensor has the entry's shape and holds the entry's bytes; a conversion reads all of them.
void check(const TensorEntry& entry, const at::Tensor& tensor, at::ScalarType wanted, const std::string& content) {
  expect(tensor.scalar_type() == wanted, "dtype");
  expect(tensor.sizes().vec() == entry.shape, "shape");
  expect(tensor.is_contiguous(), "contiguous");
  const char* name = wanted == at::kFloat ? "F32" : wanted == at::kBFloat16 ? "BF16" : "";
  if (entry.dtype != name || tensor.numel() == 0) return;
  const auto bytes = static_cast<size_t>(entry.end - entry.begin);
  expect(tensor.nbytes() == bytes, "size");
  expect(std::memcmp(tensor.const_data_ptr(), content.data() + entry.begin, bytes) == 0, "bytes");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const char* const dtypes[] = {"F32", "BF16", "F16", "F64", "I8", ""};
  fuzz::Bytes in(data, size);
  const at::ScalarType wanted = in.below(2) == 0 ? at::kFloat : at::kBFloat16;
  std::vector<size_t> sizes(in.below(3));
  for (auto& bytes : sizes) bytes = in.take<uint16_t>();
  TensorTable table;
  table.tensors.resize(in.below(9));
  for (auto& entry : table.tensors) {
    entry.name = std::string(1, static_cast<char>('a' + in.below(8)));
    entry.dtype = dtypes[in.below(6)];
    entry.shape.resize(in.below(80));
    for (auto& dimension : entry.shape) dimension = in.take<int64_t>();
    entry.file = in.take<int8_t>();
    entry.begin = in.take<int64_t>();
    entry.end = in.take<int64_t>();
  }
  const std::string rest = in.rest();
  std::vector<std::unique_ptr<MemoryFile>> files;
  for (const size_t bytes : sizes) {
    files.push_back(std::make_unique<MemoryFile>(rest.substr(0, bytes)));
    table.files.push_back(files.back()->path());
  }
  try {
    const auto tensors = map_tensors(table, wanted);
    expect(tensors.size() == table.tensors.size(), "every entry has a tensor");
    for (const auto& entry : table.tensors)
      check(entry, tensors.at(entry.name), wanted, files.at(static_cast<size_t>(entry.file))->content());
  } catch (const Error& error) {
    expect(error.code == "FILE_INVALID" || error.code == "IO_FAILED", error.what());
  }
  return 0;
}
