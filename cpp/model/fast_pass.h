// One pass of the fast decoder over a batch: what its threads share, and the phases that they walk through together.
#pragma once
#include <atomic>
#include <vector>

#include "kernels/team.h"
#include "model/fast.h"

namespace c2c {

class Pass {
 public:
  Pass(FastDecoder& model, std::vector<Request>& requests, const Batch& batch, const CancelFlag& cancel);
  // Logits of the rows that want them, [rows, vocab] (undefined where none does), in the batch's order.
  at::Tensor run();

 private:
  // A request's keys and values in one block of the decoder.
  struct View {
    std::vector<Slice> slices;
    std::vector<RowRun> runs;
    std::vector<at::Tensor> copies;                // of stored rows, into which runs point
    std::byte *keys = nullptr, *values = nullptr;  // where its new rows go
    int64_t stride = 0;                            // elements from new row to new row
  };

  void walk(const Member& m);
  void start(const Member& m);
  void view(size_t layer);
  void attention(const Member& m, size_t layer);
  void turn(size_t layer, size_t request, int64_t row, int64_t kv);
  void attend_few(const Member& m, size_t layer, bool turned);
  float* part(int64_t index) const;
  void join(const Member& m);
  void attend_many(const Member& m, size_t layer, size_t request);
  void pack_rows(size_t request, int64_t kv, int64_t first, int64_t last, std::byte* keys, std::byte* values,
                 std::byte* scratch);
  void settle(int64_t row, int64_t head, const float* sums, const float* mass);
  void feed_forward(const Member& m, size_t layer);
  void finish(const Member& m);

  // The normed rows as a product reads them. Few rows: every thread norms them for itself, which spares a phase.
  const std::byte* normed(const Member& m, const FastDecoder::Norm& weight);
  void add_normed(const Member& m, const FastDecoder::Norm& weight);
  // A product's blocks [begin, end), dealt out among the threads; end 0: all. Every product of a pass has a number of
  // its own.
  void multiply(const Member& m, size_t number, const Packed& w, const std::byte* rows, int64_t stride, After after,
                void* out, int64_t out_stride, int64_t begin = 0, int64_t end = 0);
  void encode(const Member& m, Product& p);
  void deal(const Member& m, size_t number, const Product& p, int64_t begin, int64_t end);
  Lead lead(const Member& m, const Packed& w) const;
  Sight sight(size_t layer, size_t request, int64_t row) const;

  FastDecoder& model_;
  const DecoderSpec& spec_;
  std::vector<Request>& requests_;
  const Batch& batch_;
  const CancelFlag& cancel_;
  const Kernels& k_;

  int64_t rows_, team_, hidden_, queries_, values_, inner_, scratch_size_, width_;
  int64_t key_at_, value_at_;  // where keys and values begin in the first product's outputs
  int64_t item_, cache_item_;  // bytes of a row's value, of a cache's value
  bool few_, single_;          // few rows in all; one at most for each request
  int64_t splits_ = 1;         // parts that the rows which one row sees are cut into
  float *x_, *inputs_, *turns_, *middle_, *partial_;
  std::byte *normed_, *query_, *attended_, *narrow_, *activated_, *scratch_, *keys_, *values_packed_;
  std::vector<View> views_;
  std::vector<int64_t> wanted_;
  at::Tensor logits_;
  std::atomic<int64_t> next_{0};
  size_t products_;                          // of a pass, rounded up to whole cache lines
  std::vector<std::atomic<int64_t>> taken_;  // [members, products]: blocks of a member's share that are taken
  std::atomic<bool> stop_{false};
};

}  // namespace c2c
