#include "cache/file.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "cache/digest.h"
#include "cache/quantized.h"
#include "core/system.h"

namespace c2c {

namespace {

const char* dtype_name(at::ScalarType type) { return type == at::kFloat ? "F32" : "BF16"; }

// Neighbouring segments of one form.
struct Run {
  FilePart part;
  std::vector<Segment> segments;
};

std::vector<Run> runs_of(const KvCache& cache) {
  std::vector<Run> runs;
  for (const Segment& s : cache.segments()) {
    if (s.rows == 0) continue;
    const StoredRows* stored = s.block->stored();
    if (stored != nullptr) {
      runs.push_back({{stored->form(), s.rows, s.start % kCodeRows}, {s}});
      continue;
    }
    if (runs.empty() || runs.back().part.form != Form::kPlain) runs.push_back({});
    runs.back().part.rows += s.rows;
    runs.back().segments.push_back(s);
  }
  return runs;
}

FileTensor plain_tensor(const CacheLayout& layout, const Run& run, const std::string& name) {
  const auto write = [layout, run](const Sink& sink) {
    for (int64_t layer = 0; layer < layout.layers; ++layer)
      for (int64_t part = 0; part < 2; ++part)
        for (const Segment& s : run.segments) {
          const at::Tensor rows = s.block->rows(layer, part, s.start, s.start + s.rows).cpu();
          sink(rows.const_data_ptr(), rows.nbytes());
        }
  };
  return {name, dtype_name(layout.dtype), {layout.layers, 2, run.part.rows, layout.kv_heads, layout.head_dim}, write};
}

// Rows of each layer, of a tensor [layers, rows, …].
FileTensor rows_tensor(const std::string& name, const at::Tensor& all, int64_t start, int64_t rows) {
  std::vector<int64_t> shape = all.sizes().vec();
  shape[1] = rows;
  const auto write = [all, start, rows](const Sink& sink) {
    for (int64_t layer = 0; layer < all.size(0); ++layer) {
      const at::Tensor part = all.select(0, layer).narrow(0, start, rows);
      sink(part.const_data_ptr(), part.nbytes());
    }
  };
  return {name, all.scalar_type() == at::kByte ? "U8" : "BF16", std::move(shape), write};
}

FileTensor ids_tensor(const std::string& name, const std::vector<uint32_t>& ids) {
  return {
      name, "U32", {static_cast<int64_t>(ids.size())}, [&ids](const Sink& sink) { sink(ids.data(), 4 * ids.size()); }};
}

// Writes in pieces of kDigestChunk, of which each is hashed on its way.
class Writer {
 public:
  Writer(int file, const std::string& path, const CancelFlag& cancel) : file_(file), path_(path), cancel_(cancel) {
    buffer_.reserve(kDigestChunk);
  }

  void add(const void* data, size_t size) {
    const auto* at = static_cast<const std::byte*>(data);
    while (size > 0) {
      const size_t count = std::min(size, kDigestChunk - buffer_.size());
      buffer_.insert(buffer_.end(), at, at + count);
      at += count;
      size -= count;
      if (buffer_.size() == kDigestChunk) flush();
    }
  }

  void flush() {
    if (buffer_.empty()) return;
    check(cancel_);
    chunks_.push_back(digest(buffer_.data(), buffer_.size()));
    put(buffer_.data(), buffer_.size(), size_);
    size_ += buffer_.size();
    buffer_.clear();
  }

  void put(const void* data, size_t size, size_t offset) {
    const auto* at = static_cast<const std::byte*>(data);
    while (size > 0) {
      const ssize_t count = ::pwrite(file_, at, size, static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) io_failed(path_, "write", count < 0 ? errno : EIO);
      at += count;
      offset += static_cast<size_t>(count);
      size -= static_cast<size_t>(count);
    }
  }

  std::string checksum() const { return digest_text(chunks_, size_); }

 private:
  int file_;
  std::string path_;
  CancelFlag cancel_;
  std::vector<std::byte> buffer_;
  std::vector<uint64_t> chunks_;
  size_t size_ = 0;
};

// Bytes of a mapped file as tensors that keep it alive.
class Reader {
 public:
  Reader(std::shared_ptr<Mapping> map, const std::string& path) : map_(std::move(map)), path_(path) {}

  at::Tensor tensor(int64_t begin, std::vector<int64_t> shape, at::ScalarType type) const {
    const auto item = static_cast<int64_t>(c10::elementSize(type));
    int64_t bytes = item;
    for (const int64_t size : shape)
      if (size <= 0 || __builtin_mul_overflow(bytes, size, &bytes)) file_invalid(path_, "impossible shape");
    const auto size = static_cast<int64_t>(map_->size());
    if (begin < 0 || begin % item != 0 || bytes > size || begin > size - bytes)
      file_invalid(path_, "a tensor does not fit the file");
    auto keep = map_;
    // Blocks of rows that are there already are never written to.
    void* at = const_cast<std::byte*>(map_->data() + begin);
    return at::from_blob(
        at, shape, [keep](void*) {}, at::TensorOptions().dtype(type));
  }

  std::vector<uint32_t> ids(int64_t begin, int64_t count, int64_t limit, const char* what) const {
    if (count == 0) return {};
    const at::Tensor all = tensor(begin, {count}, at::kInt);
    const auto* first = reinterpret_cast<const uint32_t*>(all.const_data_ptr());
    std::vector<uint32_t> ids(first, first + count);
    for (const uint32_t id : ids)
      if (id >= limit) file_invalid(path_, std::string(what) + " " + std::to_string(id) + " is none of the model's");
    return ids;
  }

  [[noreturn]] void invalid(const std::string& reason) const { file_invalid(path_, reason); }

 private:
  std::shared_ptr<Mapping> map_;
  std::string path_;
};

std::shared_ptr<Block> part_block(const Reader& reader, const FileCache::Part& part, const CacheLayout& layout) {
  if (part.form == Form::kPlain)
    return std::make_shared<Block>(
        reader.tensor(part.plain, {layout.layers, 2, part.rows, layout.kv_heads, layout.head_dim}, layout.dtype)
            .to(layout.device));
  const int64_t rows = part.rows + part.skip;
  const auto shapes = QuantizedRows::shapes(layout, part.form, rows);
  Codes codes{reader.tensor(part.keys, shapes[0], at::kByte), reader.tensor(part.key_scales, shapes[1], at::kBFloat16),
              reader.tensor(part.values, shapes[2], at::kByte),
              reader.tensor(part.value_scales, shapes[3], at::kBFloat16)};
  return std::make_shared<Block>(std::make_shared<QuantizedRows>(layout, part.form, rows, std::move(codes)));
}

}  // namespace

FilePlan plan_file(const KvCache& cache) {
  const CacheLayout& layout = cache.layout();
  FilePlan plan;
  std::vector<FileTensor> bytes;  // these come last
  for (const Run& run : runs_of(cache)) {
    const std::string name = std::to_string(plan.parts.size()) + ".";
    plan.parts.push_back(run.part);
    if (run.part.form == Form::kPlain) {
      plan.tensors.push_back(plain_tensor(layout, run, name + "rows"));
      continue;
    }
    // Whole groups of rows, as far as the cache's last row.
    const int64_t start = run.segments[0].start - run.part.skip, rows = run.part.skip + run.part.rows;
    const Codes& codes = dynamic_cast<const QuantizedRows&>(*run.segments[0].block->stored()).codes();
    plan.tensors.push_back(
        rows_tensor(name + "key_scales", codes.key_scales, start / kCodeRows, (rows + kCodeRows - 1) / kCodeRows));
    plan.tensors.push_back(rows_tensor(name + "value_scales", codes.value_scales, start, rows));
    bytes.push_back(rows_tensor(name + "keys", codes.keys, start, rows));
    bytes.push_back(rows_tensor(name + "values", codes.values, start, rows));
  }
  plan.tensors.push_back(ids_tensor("tokens", cache.tokens()));
  plan.tensors.push_back(ids_tensor("positions", cache.positions()));
  std::move(bytes.begin(), bytes.end(), std::back_inserter(plan.tensors));
  return plan;
}

std::string write_file(const FilePlan& plan, int file, const std::string& path, std::vector<std::byte> header,
                       size_t checksum_at, const CancelFlag& cancel) {
  Writer writer(file, path, cancel);
  writer.add(header.data(), header.size());
  const Sink sink = [&](const void* data, size_t size) { writer.add(data, size); };
  for (const FileTensor& tensor : plan.tensors) tensor.write(sink);
  writer.flush();
  const std::string checksum = writer.checksum();
  writer.put(checksum.data(), checksum.size(), checksum_at);
  return checksum;
}

bool check_file(const Mapping& map, size_t checksum_at, const std::string& checksum, const CancelFlag& cancel) {
  const size_t size = map.size(), end = checksum_at + kDigestDigits;
  if (end < checksum_at || end > size) return false;
  std::vector<uint64_t> chunks((size + kDigestChunk - 1) / kDigestChunk);
  std::atomic<bool> stopped = false;
  at::parallel_for(0, static_cast<int64_t>(chunks.size()), 4, [&](int64_t first, int64_t last) {
    std::vector<std::byte> copy;
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
      if (cancel && cancel->load()) stopped = true;
      if (stopped) return;
      const size_t begin = i * kDigestChunk, stop = std::min(size, begin + kDigestChunk);
      const std::byte* data = map.data() + begin;
      if (begin < end && checksum_at < stop) {
        copy.assign(data, map.data() + stop);
        for (size_t at = std::max(begin, checksum_at); at < std::min(stop, end); ++at)
          copy[at - begin] = std::byte{'0'};
        data = copy.data();
      }
      chunks[i] = digest(data, stop - begin);
    }
  });
  if (stopped) throw Cancelled();
  return digest_text(chunks, size) == checksum &&
         std::memcmp(map.data() + checksum_at, checksum.data(), kDigestDigits) == 0;
}

std::shared_ptr<KvCache> map_cache(const std::shared_ptr<Mapping>& map, const std::string& path, const FileCache& file,
                                   const CacheLayout& layout, int64_t vocab, std::shared_ptr<const Ropes> ropes) {
  const Reader reader(map, path);
  if (file.rows < 0) reader.invalid("a negative number of rows");
  std::vector<Segment> segments;
  int64_t rows = 0;
  for (const FileCache::Part& part : file.parts) {
    if (part.rows <= 0 || part.rows > file.rows - rows) reader.invalid("parts do not add up to the rows");
    if (part.skip < 0 || part.skip >= (part.form == Form::kPlain ? 1 : kCodeRows)) reader.invalid("rows are left out");
    rows += part.rows;
    segments.push_back({part_block(reader, part, layout), part.skip, part.rows});
  }
  if (rows != file.rows) reader.invalid("parts do not add up to the rows");
  auto tokens = reader.ids(file.tokens, rows, vocab, "token");
  auto positions = reader.ids(file.positions, rows, layout.context, "position");
  return std::make_shared<KvCache>(layout, std::move(segments), std::move(tokens), std::move(positions),
                                   std::move(ropes));
}

}  // namespace c2c
