#include "weights/tensor_table.h"

#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <mutex>

#include "core/error.h"

namespace c2c {

namespace {

constexpr size_t kMaxRank = 8;  // libtorch's operators take 64; weights have at most two

const char* errno_name(int error) {
  switch (error) {
    case ENOENT:
      return "ENOENT";
    case EACCES:
      return "EACCES";
    case EISDIR:
      return "EISDIR";
    case ENOMEM:
      return "ENOMEM";
    case EMFILE:
      return "EMFILE";
    default:
      return "EIO";
  }
}

// Ends of all live mappings by their begin.
struct Mapped {
  std::mutex mutex;
  std::map<uintptr_t, uintptr_t> ranges;
  static Mapped& instance() {
    static Mapped* all = new Mapped;  // never destroyed: tensors may outlive other statics
    return *all;
  }
};

struct Mapping {
  void* data = nullptr;
  size_t size = 0;

  explicit Mapping(const std::string& path) {
    const auto fail = [&](const char* operation, int error) {
      throw Error("IO_FAILED", std::string(operation) + " " + path + ": " + errno_name(error),
                  {{"path", path}, {"operation", std::string(operation)}, {"system", std::string(errno_name(error))}});
    };
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail("open", errno);
    struct stat info {};
    if (::fstat(fd, &info) != 0 || S_ISDIR(info.st_mode)) {
      const int error = S_ISDIR(info.st_mode) ? EISDIR : errno;
      ::close(fd);
      fail("stat", error);
    }
    size = static_cast<size_t>(info.st_size);
    if (size > 0) data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    ::close(fd);
    if (data == MAP_FAILED) {
      data = nullptr;
      fail("mmap", error);
    }
    if (data == nullptr) return;
    const std::lock_guard lock(Mapped::instance().mutex);
    Mapped::instance().ranges[reinterpret_cast<uintptr_t>(data)] = reinterpret_cast<uintptr_t>(data) + size;
  }
  ~Mapping() {
    if (data == nullptr) return;
    const std::lock_guard lock(Mapped::instance().mutex);
    Mapped::instance().ranges.erase(reinterpret_cast<uintptr_t>(data));
    ::munmap(data, size);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
};

[[noreturn]] void invalid(const std::string& file, const std::string& reason) {
  throw Error("FILE_INVALID", file + ": " + reason, {{"file", file}, {"reason", reason}});
}

at::ScalarType scalar_type(const std::string& name, const std::string& file) {
  if (name == "F32") return at::kFloat;
  if (name == "BF16") return at::kBFloat16;
  if (name == "F16") return at::kHalf;
  if (name == "F64") return at::kDouble;
  invalid(file, "unknown dtype " + name);
}

}  // namespace

std::unordered_map<std::string, at::Tensor> map_tensors(const TensorTable& table, std::optional<at::ScalarType> dtype) {
  std::vector<std::shared_ptr<Mapping>> maps;
  for (const auto& file : table.files) maps.push_back(std::make_shared<Mapping>(file));
  std::unordered_map<std::string, at::Tensor> tensors;
  for (const auto& entry : table.tensors) {
    if (entry.file < 0 || entry.file >= static_cast<int64_t>(maps.size())) invalid(entry.name, "no such file index");
    const auto& map = maps[static_cast<size_t>(entry.file)];
    const auto& file = table.files[static_cast<size_t>(entry.file)];
    const at::ScalarType type = scalar_type(entry.dtype, file);
    const int64_t item = static_cast<int64_t>(c10::elementSize(type));
    if (entry.shape.size() > kMaxRank) invalid(file, "too many dimensions in " + entry.name);
    // Strides count an empty dimension as one, so they may overflow where the number of elements does not.
    int64_t count = 1, stride = item;
    for (const int64_t size : entry.shape) {
      if (size < 0 || __builtin_mul_overflow(count, size, &count) ||
          __builtin_mul_overflow(stride, std::max<int64_t>(size, 1), &stride)) {
        invalid(file, "impossible shape of " + entry.name);
      }
    }
    int64_t bytes = 0;
    if (__builtin_mul_overflow(count, item, &bytes) || entry.begin < 0 || entry.end < entry.begin ||
        entry.end - entry.begin != bytes || entry.end > static_cast<int64_t>(map->size)) {
      invalid(file, "tensor " + entry.name + " does not fit the file");
    }
    char* at_begin = static_cast<char*>(map->data) + entry.begin;
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
      invalid(file, "tensor " + entry.name + " appears twice");
  }
  return tensors;
}

void drop_pages(const at::Tensor& tensor) {
  if (!tensor.is_contiguous() || tensor.nbytes() == 0) return;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()), end = begin + tensor.nbytes();
  const std::lock_guard lock(Mapped::instance().mutex);
  auto found = Mapped::instance().ranges.upper_bound(begin);
  if (found == Mapped::instance().ranges.begin() || end > (--found)->second) return;
  // Whole pages alone: what shares a page with a neighbour stays.
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace c2c
