#include "weights/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <mutex>

#include "core/system.h"

namespace c2c {

namespace {

// Ends of all live mappings by their begin.
struct Mapped {
  std::mutex mutex;
  std::map<uintptr_t, uintptr_t> ranges;
  static Mapped& instance() {
    static Mapped* all = new Mapped;  // never destroyed: tensors may outlive other statics
    return *all;
  }
};

}  // namespace

Mapping::Mapping(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) io_failed(path, "open", errno);
  try {
    map(file, path);
  } catch (...) {
    ::close(file);
    throw;
  }
  ::close(file);
}

Mapping::Mapping(int file, const std::string& path) { map(file, path); }

void Mapping::map(int file, const std::string& path) {
  struct stat info {};
  if (::fstat(file, &info) != 0) io_failed(path, "stat", errno);
  if (S_ISDIR(info.st_mode)) io_failed(path, "stat", EISDIR);
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;
  void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
  if (data == MAP_FAILED) io_failed(path, "mmap", errno);
  data_ = data;
  const std::lock_guard lock(Mapped::instance().mutex);
  Mapped::instance().ranges[reinterpret_cast<uintptr_t>(data_)] = reinterpret_cast<uintptr_t>(data_) + size_;
}

Mapping::~Mapping() {
  if (data_ == nullptr) return;
  const std::lock_guard lock(Mapped::instance().mutex);
  Mapped::instance().ranges.erase(reinterpret_cast<uintptr_t>(data_));
  ::munmap(data_, size_);
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
