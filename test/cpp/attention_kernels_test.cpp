// Attention of every instruction set that this machine runs, against plain sums in float64. Prints "N passed, N
// failed".
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/max.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "kernels_check.h"

using namespace c2c;

namespace {

struct Heads {
  int64_t heads, kv, dim;
};

// Plain attention of `queries` [n, heads, dim] over keys and values [seen, kv, dim], the last row seeing all.
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, Heads h, double scale,
                           const std::vector<uint32_t>& positions, int64_t window) {
  const int64_t n = q.size(0), seen = k.size(0), group = h.heads / h.kv;
  at::Tensor out = at::zeros({n, h.heads, h.dim}, at::TensorOptions().dtype(at::kDouble));
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t head = 0; head < h.heads; ++head) {
      const at::Tensor score = k.select(1, head / group).to(at::kDouble).mv(q[r][head].to(at::kDouble)) * scale;
      std::vector<double> hidden(static_cast<size_t>(seen), 0.0);
      const auto position = [&](int64_t i) { return int64_t{positions[static_cast<size_t>(i)]}; };
      for (int64_t i = 0; i < seen; ++i)
        if (i > seen - n + r || (window > 0 && position(seen - n + r) - position(i) >= window))
          hidden[static_cast<size_t>(i)] = -INFINITY;
      const at::Tensor share = at::softmax(score + at::tensor(hidden, at::kDouble), 0);
      out[r][head] = v.select(1, head / group).to(at::kDouble).t().mv(share);
    }
  }
  return out;
}

std::vector<uint32_t> jumping(int64_t count) {
  std::vector<uint32_t> positions;
  for (int64_t i = 0; i < count; ++i) positions.push_back(static_cast<uint32_t>(i + (i > count / 2 ? 5 : 0)));
  return positions;
}

// Heads, rows and window; the last two have more queries than a pass holds, of several heads and of one.
void attention(const Kernels& k) {
  const std::vector<std::tuple<Heads, int64_t, int64_t>> cases{
      {{4, 2, 64}, 1, 0},    {{6, 3, 24}, 70, 0},     {{16, 8, 128}, 200, 0}, {{14, 2, 64}, 133, 0},
      {{20, 1, 8}, 65, 0},   {{4, 4, 4}, 3, 0},       {{4, 1, 256}, 90, 0},   {{4, 2, 64}, 150, 40},
      {{6, 3, 24}, 70, 10},  {{4, 2, 128}, 600, 500}, {{96, 48, 16}, 40, 0},  {{70, 1, 8}, 65, 20},
      {{16, 16, 64}, 70, 0}, {{48, 16, 40}, 45, 0},   {{32, 8, 128}, 77, 0},  {{32, 8, 80}, 90, 30}};
  for (const bool bf16 : {false, true}) {
    for (const auto& [h, seen, window] : cases) {
      const at::ScalarType type = bf16 ? at::kBFloat16 : at::kFloat;
      const std::string label = std::string(k.name) + (bf16 ? " bf16 " : " float ") + std::to_string(h.heads) + "/" +
                                std::to_string(h.kv) + "x" + std::to_string(h.dim) + " over " + std::to_string(seen) +
                                (window ? " window " + std::to_string(window) : "");
      const at::Tensor keys = at::randn({seen, h.kv, h.dim}).to(type), values = at::randn({seen, h.kv, h.dim}).to(type);
      const auto positions = jumping(seen);
      const float scale = 0.2F;
      const int64_t group = h.heads / h.kv, width = h.kv * h.dim;
      run(label + " attend", [&, h = h, seen = seen, window = window] {
        // The three rows behind a call's queries are read and must not matter.
        at::Tensor room = at::randn({h.heads + 3, h.dim}).to(type);
        room.narrow(0, h.heads, 3).fill_(NAN);
        const at::Tensor query = room.narrow(0, 0, h.heads).unsqueeze(0);
        // Three segments, of which the second is cut in two calls whose results are put together.
        const int64_t a = seen / 3, b = seen / 2;
        std::vector<RowRun> segments;
        for (const auto& [from, to] : {std::pair{int64_t{0}, a}, {a, b}, {b, seen}}) {
          if (from == to) continue;
          segments.push_back({keys[from].const_data_ptr(), values[from].const_data_ptr(), width, to - from});
        }
        at::Tensor out = at::zeros({h.heads, h.dim});
        const int64_t cut = (a + b) / 2;
        // All heads in one call, and the last of them in a call of its own.
        for (const auto& [kv, count] : {std::pair{int64_t{0}, h.kv}, {h.kv - 1, int64_t{1}}}) {
          std::vector<at::Tensor> sums, tops, masses;
          for (const auto& [from, to] : {std::pair{int64_t{0}, cut}, {cut, seen}}) {
            at::Tensor sum = at::zeros({count * group, h.dim}), top = at::zeros({count * group});
            at::Tensor mass = at::zeros({count * group});
            Attention part{.bf16 = bf16, .sight = {segments.data(), seen}};
            if (window > 0) {
              part.sight.positions = positions.data();
              part.sight.position = positions.back();
              part.sight.window = window;
            }
            part.begin = from;
            part.end = to;
            part.head_offset = kv * h.dim;
            part.heads = count;
            part.dim = h.dim;
            part.group = group;
            part.query = query[0][kv * group].const_data_ptr();
            part.scale = scale;
            part.out = sum.data_ptr<float>();
            part.top = top.data_ptr<float>();
            part.mass = mass.data_ptr<float>();
            k.attend(part);
            sums.push_back(sum);
            tops.push_back(top);
            masses.push_back(mass);
          }
          const at::Tensor most = at::max(tops[0], tops[1]);
          at::Tensor total = at::zeros({count * group, 1}), sum = at::zeros({count * group, h.dim});
          for (size_t i = 0; i < 2; ++i) {
            const at::Tensor share = at::exp(tops[i] - most).unsqueeze(1);
            total += share * masses[i].unsqueeze(1);
            sum += share * sums[i];
          }
          const at::Tensor made = sum / total, place = out.narrow(0, kv * group, count * group);
          if (kv > 0 && error_of(made, place) != 0) return false;
          place.copy_(made);
        }
        const at::Tensor expected = plain_attention(query, keys, values, h, scale, positions, window)[0];
        // Units for pairs of bf16 take the weights of values as bf16 too.
        const bool paired =
            std::string_view(k.name).starts_with("avx512bf16") || std::string_view(k.name) == "avx512intel";
        const double off = error_of(out, expected);
        return off < (!bf16 ? 1e-5 : paired ? 4e-3 : 1e-3);
      });
      run(label + " attend_tile", [&, h = h, seen = seen, window = window] {
        const int64_t rows = std::min<int64_t>(seen, 41);
        const at::Tensor query = at::randn({rows, h.heads, h.dim}).to(type);
        const Store store = bf16 ? Store::kBf16 : Store::kFloat;
        at::Tensor out = at::zeros({rows, h.heads, h.dim}, query.options());
        for (int64_t head = 0; head < h.heads; ++head) {
          const int64_t kv = head / group;
          Bytes pk((seen + kBlock - 1) / kBlock * block_bytes(store, h.dim)),
              pv((h.dim + kBlock - 1) / kBlock * block_bytes(store, seen)), scratch(tile_scratch(h.dim));
          for (int64_t r = 0; r < seen; r += kBlock) {
            const int64_t count = std::min(kBlock, seen - r);
            k.pack_keys(bf16, keys[r][kv].const_data_ptr(), width, count, h.dim,
                        pk.data() + r / kBlock * block_bytes(store, h.dim));
            k.pack_values(bf16, values[r][kv].const_data_ptr(), width, count, h.dim, seen, r, pv.data());
          }
          TileAttention t{.bf16 = bf16, .keys = pk.data(), .values = pv.data(), .seen = seen, .dim = h.dim};
          t.query = query[0][head].const_data_ptr();
          t.query_stride = h.heads * h.dim;
          t.rows = rows;
          t.first = seen - rows;
          if (window > 0) {
            t.positions = positions.data();
            t.window = window;
          }
          t.scale = scale;
          t.out = out[0][head].data_ptr();
          t.out_stride = h.heads * h.dim;
          t.scratch = scratch.data();
          k.attend_tile(t);
        }
        const at::Tensor expected = plain_attention(query, keys, values, h, scale, positions, window);
        return error_of(out, expected) < (bf16 ? 1e-2 : 1e-5);
      });
    }
  }
}

}  // namespace

int main() {
  const KernelList all = all_kernels();
  for (size_t i = 0; i < all.count; ++i) {
    at::manual_seed(1);
    attention(*all.tables[i]);
  }
  return result();
}
