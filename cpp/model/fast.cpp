#include "model/fast.h"

#include <algorithm>

#include "core/pages.h"
#include "model/fast_pass.h"
#include "weights/mapping.h"

namespace c2c {

namespace {

// Buffers of a long prefill are given back, and so are the embedding's pages; smaller ones stay.
constexpr int64_t kKept = int64_t{32} << 20;

FastDecoder::Norm norm_weight(const DecoderSpec& spec, const at::Tensor& weight) {
  if (!weight.defined()) return {};
  const at::Tensor wide = weight.detach().to(at::kFloat).contiguous();
  const float* first = wide.const_data_ptr<float>();
  FastDecoder::Norm values(static_cast<size_t>(round_up(wide.numel(), kBlock)), 0.0F);
  std::transform(first, first + wide.numel(), values.begin(),
                 [&](float w) { return w + static_cast<float>(spec.norm_offset); });
  return values;
}

Store store_of(at::ScalarType dtype, Quantize quantize) {
  if (quantize == Quantize::kInt8) return Store::kInt8;
  if (quantize == Quantize::kInt4) return Store::kInt4;
  return dtype == at::kBFloat16 ? Store::kBf16 : Store::kFloat;
}

}  // namespace

FastDecoder::FastDecoder(const DecoderSpec& spec, DecoderWeights weights, at::ScalarType dtype, Quantize quantize)
    : spec_(spec),
      dtype_(dtype),
      narrow_rows_(dtype == at::kBFloat16 || quantize != Quantize::kNone),
      final_norm_(norm_weight(spec, weights.final_norm)),
      versions_(weight_versions(weights)) {
  const auto held = weights.embedding.scalar_type();
  embedding_ = weights.embedding.detach().to(held == at::kFloat || held == at::kBFloat16 ? held : dtype).contiguous();
  const Store store = store_of(dtype, quantize);
  const auto pack = [&](std::vector<const Linear*> parts, Packed* target, bool paired = false) {
    PackSource source{{}, {}, paired, store};
    for (const Linear* part : parts) {
      source.weights.push_back(part->weight.detach());
      source.biases.push_back(part->bias.defined() ? part->bias.detach() : part->bias);
    }
    packed_.add(std::move(source), target);
  };
  blocks_.resize(weights.layers.size());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Layer& l = weights.layers[i];
    Block& b = blocks_[i];
    b.input_norm = norm_weight(spec, l.input_norm);
    b.attention_norm = norm_weight(spec, l.attention_norm);
    b.feed_norm = norm_weight(spec, l.feed_norm);
    b.feed_post_norm = norm_weight(spec, l.feed_post_norm);
    b.query_norm = norm_weight(spec, l.query_norm);
    b.key_norm = norm_weight(spec, l.key_norm);
    pack({&l.query, &l.key, &l.value}, &b.inputs);
    pack({&l.output}, &b.output);
    pack({&l.gate, &l.up}, &b.gate_up, true);
    pack({&l.down}, &b.down);
  }
  // The head decides between neighbours: it keeps eight bits where the rest has four.
  packed_.add({{weights.head.detach()}, {}, false, store == Store::kInt4 ? Store::kInt8 : store}, &head_);
  weights = {};  // whatever nobody else holds goes as soon as it is packed
  packed_.pack();
  give_back_freed();  // what reading the files and the vocabulary took
}

std::vector<at::Tensor> FastDecoder::forward(std::vector<Request>& requests, const Batch& batch,
                                             const CancelFlag& cancel) {
  const at::Tensor logits = Pass(*this, requests, batch, cancel).run();
  auto results = split_logits(logits, requests, batch);
  workspace_.trim(kKept);
  // A row of a mapped embedding brings two megabytes around it along where the system maps large pages: the rows of a
  // long text would hold most of what is packed a second time. Mapping a row again takes about 5 µs.
  if (static_cast<int64_t>(embedding_.nbytes()) > kKept) drop_pages(embedding_);
  return results;
}

}  // namespace c2c
