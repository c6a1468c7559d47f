// Rows in 8 or 4 bits (after KIVI, arXiv 2402.02750): a value is low + code · scale, with codes from 0 to 255 or 15.
// Keys, whose channels differ in size, have low and scale for each channel of kCodeRows rows; values for each
// kCodeChannels channels of one row. Both are bfloat16; low is rounded down and scale up, so that all values lie
// between low and low + levels · scale, and none is further than scale / 2 from what it becomes.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "cache/kv_cache.h"
#include "core/cancel.h"
#include "kernels/kernels.h"

namespace c2c {

// Codes [layers, rows, code_bytes] and, in each pair, low before scale: of keys [layers, groups of rows, 2, width], of
// values [layers, rows, 2, groups of channels].
struct Codes {
  at::Tensor keys, key_scales, values, value_scales;
};

// What a part of the rows lost.
struct RowError {
  double difference = 0, magnitude = 0;  // sums of squares
  double largest = 0;
  double relative() const;
  void add(const RowError& other);
};

struct QuantizeReport {
  int64_t bytes = 0;  // that the rows take now
  int64_t plain = 0;  // that they take as they are
  RowError key, value;
};

class QuantizedRows final : public StoredRows {
 public:
  // Bytes of one row's codes: channels in order, or in groups of kCodeChannels, byte i with channels i and i + 16.
  static int64_t code_bytes(Form form, int64_t width);
  // Shapes of the four tensors.
  static std::vector<std::vector<int64_t>> shapes(const CacheLayout& layout, Form form, int64_t rows);

  // Rows that are in this form already. Scales in bfloat16, codes in bytes.
  QuantizedRows(const CacheLayout& layout, Form form, int64_t rows, Codes codes);

  Form form() const override { return form_; }
  int64_t length() const override { return rows_; }
  int64_t bytes() const override;
  void copy(int64_t layer, int64_t part, int64_t start, int64_t end, at::ScalarType type, void* out) const override;
  at::Tensor rows(int64_t layer, int64_t part, int64_t start, int64_t end) const override;
  const Codes& codes() const { return codes_; }

 private:
  CacheLayout layout_;
  Form form_;
  int64_t rows_, width_;
  Codes codes_;
};

// A cache of the same rows: runs of plain ones in this form, others shared as they are. Adds up what it came to.
// OPTION_INVALID for rows that are not finite, or too large for bfloat16.
std::shared_ptr<KvCache> quantized(const KvCache& cache, Form form, QuantizeReport& report, const CancelFlag& cancel);

}  // namespace c2c
