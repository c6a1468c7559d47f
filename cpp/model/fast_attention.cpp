// The attention phases of a pass.
#include <algorithm>

#include "model/fast_pass.h"

namespace c2c {

namespace {

// Rows of one request up to which each is attended on its own; more go through blocked products.
constexpr int64_t kFewRows = 4;

}  // namespace

Sight Pass::sight(size_t layer, size_t request, int64_t row) const {
  const Share& share = batch_.shares[request];
  Sight s{views_[request].runs.data(), share.past + row + 1};
  const int64_t window = spec_.layers[layer].window;
  if (window == 0) return s;
  const auto [low, high] = std::minmax_element(share.positions.begin(), share.positions.end());
  if (int64_t{*high} - int64_t{*low} < window) return s;
  s.positions = share.positions.data();
  s.position = share.positions[static_cast<size_t>(share.past + row)];
  s.window = window;
  return s;
}

// Norms and turns one KV head's key and queries of one row, and puts key and value into the cache.
void Pass::turn(size_t layer, size_t request, int64_t row, int64_t kv) {
  const FastDecoder::Block& block = model_.blocks_[layer];
  const Share& share = batch_.shares[request];
  const View& view = views_[request];
  const int64_t at = share.first + row, dim = spec_.head_dim, group = spec_.heads / spec_.kv_heads;
  const float* inputs = inputs_ + at * width_;
  const float* cos = turns_ + (spec_.layers[layer].rope * rows_ + at) * dim;
  const Rope rope{cos, cos + dim / 2};
  const bool bf16 = cache_item_ == 2;
  const int64_t offset = (row * view.stride + kv * dim) * cache_item_;
  if (!requests_[request].given) {
    k_.turn(inputs + key_at_ + kv * dim, spec_.qk_norm ? block.key_norm.data() : nullptr, spec_.norm_eps, rope, dim,
            view.keys + offset, bf16);
    const float* value = inputs + value_at_ + kv * dim;
    if (bf16) {
      k_.narrow(value, dim, reinterpret_cast<Bf16*>(view.values + offset));
    } else {
      std::copy_n(value, dim, reinterpret_cast<float*>(view.values + offset));
    }
  }
  for (int64_t head = kv * group; head < (kv + 1) * group; ++head)
    k_.turn(inputs + head * dim, spec_.qk_norm ? block.query_norm.data() : nullptr, spec_.norm_eps, rope, dim,
            query_ + (at * queries_ + head * dim) * cache_item_, bf16);
}

// Divides a head's sums by their mass and writes them for the output product.
void Pass::settle(int64_t row, int64_t head, const float* sums, const float* mass) {
  const int64_t dim = spec_.head_dim, at = row * queries_ + head * dim;
  const float scale = 1.0F / *mass;
  if (cache_item_ == 2) {
    float scaled[256];
    for (int64_t d = 0; d < dim; d += 256) {
      const int64_t count = std::min<int64_t>(256, dim - d);
      std::transform(sums + d, sums + d + count, scaled, [&](float v) { return v * scale; });
      k_.narrow(scaled, count, reinterpret_cast<Bf16*>(attended_) + at + d);
    }
  } else {
    std::transform(sums, sums + dim, reinterpret_cast<float*>(attended_) + at, [&](float v) { return v * scale; });
  }
}

void Pass::attention(const Member& m, size_t layer) {
  const bool output = batch_.any_logits || layer + 1 < model_.blocks_.size();
  if (single_ && splits_ == 1) return attend_few(m, layer, false);
  // Rows of one request see each other: all keys are there before anyone attends.
  const int64_t heads = spec_.kv_heads;
  const auto [begin, end] = m.share(rows_ * heads);
  for (size_t n = 0; n < requests_.size(); ++n) {
    const Share& share = batch_.shares[n];
    const int64_t first = share.first * heads;
    for (int64_t i = std::max(begin, first); i < std::min(end, first + share.rows * heads); ++i)
      turn(layer, n, (i - first) / heads, i % heads);
  }
  if (!output) return;
  m.sync();
  attend_few(m, layer, true);
  for (size_t n = 0; n < requests_.size(); ++n)
    if (batch_.shares[n].rows > kFewRows) attend_many(m, layer, n);
}

// Rows of requests that have few. One piece of work is a row's KV head, and pieces of one row that fall to the same
// thread read the cache together; or a part of what a row sees, for all heads: memory gives whole rows in one stream
// faster than halves of them.
void Pass::attend_few(const Member& m, size_t layer, bool turned) {
  const int64_t dim = spec_.head_dim, group = spec_.heads / spec_.kv_heads;
  const int64_t pieces = splits_ > 1 ? splits_ : spec_.kv_heads;  // of one row
  const bool output = batch_.any_logits || layer + 1 < model_.blocks_.size();
  int64_t items = 0;
  for (const Share& share : batch_.shares)
    if (share.rows <= kFewRows) items += share.rows * pieces;
  if (items == 0) return;
  const auto [begin, end] = m.share(items);
  int64_t item = 0;
  for (size_t n = 0; n < requests_.size(); ++n) {
    const Share& share = batch_.shares[n];
    const int64_t count = share.rows <= kFewRows ? share.rows * pieces : 0;
    const int64_t last = std::min(end - item, count);
    for (int64_t i = std::max(begin - item, int64_t{0}), next = i; i < last; i = next) {
      const int64_t row = i / pieces, split = splits_ > 1 ? i % splits_ : 0, kv = splits_ > 1 ? 0 : i % pieces;
      next = splits_ > 1 ? i + 1 : std::min(last, (row + 1) * pieces);
      const int64_t heads = splits_ > 1 ? spec_.kv_heads : next - i;
      if (!turned)
        for (int64_t h = kv; h < kv + heads; ++h) turn(layer, n, row, h);
      if (!output) continue;
      Attention a{.bf16 = cache_item_ == 2, .sight = sight(layer, n, row)};
      a.begin = a.sight.rows * split / splits_;
      a.end = a.sight.rows * (split + 1) / splits_;
      a.head_offset = kv * dim;
      a.heads = heads;
      a.dim = dim;
      a.group = group;
      a.query = query_ + ((share.first + row) * queries_ + kv * group * dim) * cache_item_;
      a.scale = static_cast<float>(spec_.query_scale);
      a.out = part(splits_ == 1 ? m.index : (share.first + row) * splits_ + split);
      a.top = a.out + heads * group * dim;
      a.mass = a.top + heads * group;
      k_.attend(a);
      if (splits_ > 1) continue;
      for (int64_t g = 0; g < heads * group; ++g)
        settle(share.first + row, kv * group + g, a.out + g * dim, a.mass + g);
    }
    item += count;
  }
  if (splits_ > 1) join(m);
}

// Sums of all heads, then their highest scores, then their masses.
float* Pass::part(int64_t index) const { return partial_ + index * spec_.heads * (spec_.head_dim + 2); }

// Puts the parts of each row's heads together.
void Pass::join(const Member& m) {
  m.sync();
  const int64_t dim = spec_.head_dim, heads = spec_.heads;
  const auto [from, to] = m.share(rows_ * heads);
  for (int64_t i = from; i < to; ++i) {
    const int64_t row = i / heads, head = i % heads;
    float* first = part(row * splits_);
    float *sums = first + head * dim, *top = first + heads * dim + head, *mass = top + heads;
    for (int64_t s = 1; s < splits_; ++s) {
      const float* next = part(row * splits_ + s);
      const float* other = next + head * dim;
      const float other_top = next[heads * dim + head], other_mass = next[heads * dim + heads + head];
      if (other_mass == 0) continue;
      const float most = std::max(*top, other_top);
      const float mine = *mass == 0 ? 0.0F : std::exp(*top - most), theirs = std::exp(other_top - most);
      for (int64_t d = 0; d < dim; ++d) sums[d] = sums[d] * mine + other[d] * theirs;
      *mass = *mass * mine + other_mass * theirs;
      *top = most;
    }
    settle(row, head, sums, mass);
  }
}

// Many rows of one request: keys and values are packed once, then tiles of queries go through blocked products.
void Pass::attend_many(const Member& m, size_t layer, size_t request) {
  const Share& share = batch_.shares[request];
  const int64_t dim = spec_.head_dim, seen = share.past + share.rows, group = spec_.heads / spec_.kv_heads;
  const bool bf16 = cache_item_ == 2;
  const Store kind = bf16 ? Store::kBf16 : Store::kFloat;
  const int64_t blocks = (seen + kBlock - 1) / kBlock, key_bytes = block_bytes(kind, dim);
  const int64_t value_bytes = (dim + kBlock - 1) / kBlock * block_bytes(kind, seen);
  const auto [begin, end] = m.share(blocks * spec_.kv_heads);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t kv = i / blocks, first = i % blocks * kBlock, last = std::min(first + kBlock, seen);
    // Blocks are packed from one run of rows; where a block spans several, its rows are gathered first.
    pack_rows(request, kv, first, last, keys_ + i * key_bytes, values_packed_ + kv * value_bytes,
              scratch_ + m.index * scratch_size_);
  }
  m.sync();
  if (m.index == 0) next_ = 0;
  m.sync();
  const int64_t tiles = (share.rows + kTileRows - 1) / kTileRows;
  for (int64_t i; (i = next_.fetch_add(1)) < tiles * spec_.heads;) {
    // The last tiles see most: they come first.
    const int64_t tile = tiles - 1 - i / spec_.heads, head = i % spec_.heads, kv = head / group;
    const int64_t row = tile * kTileRows, at = (share.first + row) * queries_ + head * dim;
    const Sight reach = sight(layer, request, row);
    TileAttention t{.bf16 = bf16};
    t.keys = keys_ + kv * blocks * key_bytes;
    t.values = values_packed_ + kv * value_bytes;
    t.seen = seen;
    t.dim = dim;
    t.query = query_ + at * cache_item_;
    t.query_stride = queries_;
    t.rows = std::min(kTileRows, share.rows - row);
    t.first = share.past + row;
    t.positions = reach.positions;
    t.window = reach.window;
    t.scale = static_cast<float>(spec_.query_scale);
    t.out = attended_ + at * cache_item_;
    t.out_stride = queries_;
    t.scratch = scratch_ + m.index * scratch_size_;
    k_.attend_tile(t);
  }
  m.sync();
}

// Packs rows [first, last) of one KV head, from as many runs as they lie in.
void Pass::pack_rows(size_t request, int64_t kv, int64_t first, int64_t last, std::byte* keys, std::byte* values,
                     std::byte* scratch) {
  const View& view = views_[request];
  const Share& share = batch_.shares[request];
  const int64_t dim = spec_.head_dim, seen = share.past + share.rows, bytes = dim * cache_item_;
  const bool bf16 = cache_item_ == 2;
  int64_t before = 0;
  for (const RowRun& run : view.runs) {
    const int64_t from = first - before;
    if (from >= 0 && last <= before + run.rows) {
      const int64_t at = (from * run.stride + kv * dim) * cache_item_;
      k_.pack_keys(bf16, static_cast<const std::byte*>(run.keys) + at, run.stride, last - first, dim, keys);
      k_.pack_values(bf16, static_cast<const std::byte*>(run.values) + at, run.stride, last - first, dim, seen, first,
                     values);
      return;
    }
    before += run.rows;
  }
  std::byte *key = scratch, *value = scratch + kBlock * bytes;
  before = 0;
  for (const RowRun& run : view.runs) {
    for (int64_t r = std::max(first, before); r < std::min(last, before + run.rows); ++r) {
      const int64_t at = ((r - before) * run.stride + kv * dim) * cache_item_;
      std::copy_n(static_cast<const std::byte*>(run.keys) + at, bytes, key + (r - first) * bytes);
      std::copy_n(static_cast<const std::byte*>(run.values) + at, bytes, value + (r - first) * bytes);
    }
    before += run.rows;
  }
  k_.pack_keys(bf16, key, dim, last - first, dim, keys);
  k_.pack_values(bf16, value, dim, last - first, dim, seen, first, values);
}

}  // namespace c2c
