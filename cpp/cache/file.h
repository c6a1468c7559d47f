// Caches in files. A file is one safetensors: TypeScript writes and reads its header (text), this its tensors, by
// offsets. A cache's rows lie in parts, each a run of rows of one form:
//   plain          N.rows [layers, 2, rows, kvHeads, headDim]
//   8 or 4 bits    N.keys, N.key_scales, N.values, N.value_scales (see quantized.h); the first `skip` rows are not the
//                  cache's: groups of rows are kept whole
// and then tokens and positions, [rows] each.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/kv_cache.h"
#include "core/cancel.h"
#include "weights/mapping.h"

namespace c2c {

struct FilePart {
  Form form = Form::kPlain;
  int64_t rows = 0, skip = 0;
};

// Takes bytes in order.
using Sink = std::function<void(const void* data, size_t size)>;

// One tensor of a file that is to be written.
struct FileTensor {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::function<void(const Sink&)> write;
};

struct FilePlan {
  std::vector<FilePart> parts;
  std::vector<FileTensor> tensors;  // in the file's order: whatever is more than one byte wide lies aligned
};

// What a file of this cache holds. The cache must live, and stay as it is, as long as the plan is used.
FilePlan plan_file(const KvCache& cache);

// Writes header and tensors to an empty open file and returns its checksum, which replaces the kDigestDigits zeros that
// the header holds at `checksum_at`. `path` names it in errors. IO_FAILED.
std::string write_file(const FilePlan& plan, int file, const std::string& path, std::vector<std::byte> header,
                       size_t checksum_at, const CancelFlag& cancel);

// Whether the file's content has this checksum, taken with zeros for the digits at `checksum_at`.
bool check_file(const Mapping& map, size_t checksum_at, const std::string& checksum, const CancelFlag& cancel);

// What a file's header says, as offsets of its tensors.
struct FileCache {
  struct Part : FilePart {
    int64_t plain = 0;
    int64_t keys = 0, key_scales = 0, values = 0, value_scales = 0;
  };
  std::vector<Part> parts;
  int64_t rows = 0, tokens = 0, positions = 0;
};

// The cache of a mapped file, whose rows stay there. FILE_INVALID where offsets do not fit the file, or a token or a
// position is none of the model's.
std::shared_ptr<KvCache> map_cache(const std::shared_ptr<Mapping>& map, const std::string& path, const FileCache& file,
                                   const CacheLayout& layout, int64_t vocab, std::shared_ptr<const Ropes> ropes);

}  // namespace c2c
