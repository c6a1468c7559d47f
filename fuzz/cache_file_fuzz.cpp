// Any description of a cache over any file: map_cache gives a cache of exactly the file's bytes or a typed error, and
// never reads past an end; what it gives can be read, forked, edited and saved again. Input: layout (layers, heads,
// dim, dtype), rows, offsets of tokens and positions, parts (form, rows, skip, four offsets), and what is left is the
// file.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "bytes.h"
#include "cache/digest.h"
#include "cache/edit.h"
#include "cache/file.h"
#include "core/error.h"

using namespace c2c;

namespace {

void expect(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

std::shared_ptr<Mapping> mapped(const std::string& content) {
  const int file = ::memfd_create("fuzz", MFD_CLOEXEC);
  if (file < 0 || ::write(file, content.data(), content.size()) != static_cast<ssize_t>(content.size())) std::abort();
  auto map = std::make_shared<Mapping>(file, "fuzz");
  ::close(file);
  return map;
}

void use(const std::shared_ptr<KvCache>& cache, const FileCache& file) {
  expect(cache->length() == file.rows, "as many rows as said");
  const CacheLayout& layout = cache->layout();
  const auto row = [&](int64_t at) { return cache->rows(layout.layers - 1, 1, at, at + 1); };
  if (file.rows > 0) expect(row(0).numel() == layout.kv_heads * layout.head_dim, "a first row");
  if (file.rows > 1) expect(row(file.rows - 1).defined(), "a last row");
  const auto fork = cache->fork();
  if (file.rows > 0) {
    fork->own(0, 1);
    fork->put(0, 0, 0, row(file.rows - 1));
    fork->append(*cache, 0, 1);
    fork->truncate(file.rows);
  }
  const int out = ::memfd_create("saved", MFD_CLOEXEC);
  const std::string checksum =
      write_file(plan_file(*cache), out, "saved", std::vector<std::byte>(64, std::byte{'0'}), 8, nullptr);
  const Mapping saved(out, "saved");
  ::close(out);
  expect(check_file(saved, 8, checksum, nullptr), "a saved file has its checksum");
  expect(!check_file(saved, 9, checksum, nullptr), "and only there");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Bytes in(data, size);
  CacheLayout layout{1 + in.below(3), 1 + in.below(3), 2 * (1 + in.below(20)), 1000,
                     in.below(2) == 0 ? at::kFloat : at::kBFloat16};
  FileCache file;
  file.rows = in.take<int16_t>();
  file.tokens = in.take<int16_t>();
  file.positions = in.take<int16_t>();
  file.parts.resize(in.below(4));
  for (auto& part : file.parts) {
    part.form = static_cast<Form>(in.below(3));
    // Mostly sizes that a file has, now and then any at all.
    const bool any = in.below(16) == 0;
    const auto number = [&] { return any ? in.take<int64_t>() : int64_t{in.take<int16_t>()}; };
    part.rows = number();
    part.skip = number();
    for (int64_t* begin : {&part.plain, &part.keys, &part.key_scales, &part.values, &part.value_scales})
      *begin = number();
  }
  const std::string content = in.rest();
  const auto map = mapped(content);
  const auto ropes = std::make_shared<Ropes>(Ropes{{std::vector<double>(static_cast<size_t>(layout.head_dim / 2), 1.0)},
                                                   std::vector<int64_t>(static_cast<size_t>(layout.layers), 0)});
  std::shared_ptr<KvCache> cache;
  try {
    cache = map_cache(map, "fuzz", file, layout, 1000, ropes);
  } catch (const Error& error) {
    expect(error.code == "FILE_INVALID", error.what());
    return 0;
  }
  use(cache, file);
  return 0;
}
