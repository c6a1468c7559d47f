#include "train/waves.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace c2c {

namespace {

std::vector<int64_t> firsts(const std::vector<int64_t>& lengths) {
  std::vector<int64_t> out(lengths.size() + 1, 0);
  std::partial_sum(lengths.begin(), lengths.end(), out.begin() + 1);
  return out;
}

void check(bool good, const char* option, const char* reason) {
  if (!good) option_invalid(option, reason);
}

size_t at(int64_t i) { return static_cast<size_t>(i); }

}  // namespace

std::vector<SequenceRows> whole_sequences(const Reading& reading) {
  std::vector<SequenceRows> sequences;
  int64_t first = 0;
  for (const int64_t length : reading.lengths) {
    SequenceRows sequence;
    sequence.queries.resize(at(length));
    std::iota(sequence.queries.begin(), sequence.queries.end(), first);
    sequence.keys = sequence.queries;
    sequence.positions.assign(reading.positions.begin() + first, reading.positions.begin() + first + length);
    first += length;
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

void check_batch(const FuserBatch& batch) {
  const size_t samples = batch.receiver.lengths.size();
  const int64_t rows = firsts(batch.receiver.lengths).back();
  check(batch.sharer.lengths.size() == samples && batch.section_counts.size() == samples, "batch", "samples differ");
  check(rows == static_cast<int64_t>(batch.receiver.tokens.size()) &&
            batch.receiver.tokens.size() == batch.receiver.positions.size() &&
            firsts(batch.sharer.lengths).back() == static_cast<int64_t>(batch.sharer.tokens.size()) &&
            batch.sharer.tokens.size() == batch.sharer.positions.size(),
        "batch", "lengths do not add up to the tokens");
  check(firsts(batch.section_counts).back() == static_cast<int64_t>(batch.section_ends.size()), "sections",
        "their counts do not add up");
  for (const FusedRun& run : batch.fused)
    check(run.sample >= 0 && run.sample < static_cast<int64_t>(samples) && run.start >= 0 && run.start < run.end &&
              run.sharer >= 0 && run.sharer + run.end - run.start <= batch.sharer.lengths[at(run.sample)],
          "fused", "a run lies outside its sample");
  check(batch.target_rows.size() == batch.target_ids.size() && !batch.target_rows.empty(), "targets", "there are none");
  for (const int64_t row : batch.target_rows) check(row >= 0 && row < rows, "targets", "they are no rows of the batch");
}

FuserBatch part_of(const FuserBatch& batch, int64_t begin, int64_t end) {
  // What belongs to the samples in a list that holds `counts[i]` entries of sample i.
  const auto of = [&](const auto& list, const std::vector<int64_t>& counts) {
    const auto first = firsts(counts);
    return std::decay_t<decltype(list)>(list.begin() + first[at(begin)], list.begin() + first[at(end)]);
  };
  const std::vector<int64_t> ones(batch.receiver.lengths.size(), 1);
  const auto reading = [&](const Reading& whole) {
    return Reading{of(whole.tokens, whole.lengths), of(whole.positions, whole.lengths), of(whole.lengths, ones)};
  };
  FuserBatch part;
  part.receiver = reading(batch.receiver);
  part.sharer = reading(batch.sharer);
  part.section_counts = of(batch.section_counts, ones);
  part.section_ends = of(batch.section_ends, batch.section_counts);
  for (FusedRun run : batch.fused) {
    if (run.sample < begin || run.sample >= end) continue;
    run.sample -= begin;
    part.fused.push_back(run);
  }
  const auto first = firsts(batch.receiver.lengths);
  for (size_t i = 0; i < batch.target_rows.size(); ++i) {
    const int64_t row = batch.target_rows[i];
    if (row < first[at(begin)] || row >= first[at(end)]) continue;
    part.target_rows.push_back(row - first[at(begin)]);
    part.target_ids.push_back(batch.target_ids[i]);
  }
  return part;
}

std::vector<Wave> plan_waves(const FuserBatch& batch) {
  check_batch(batch);
  const size_t samples = batch.receiver.lengths.size();
  const auto first = firsts(batch.receiver.lengths), sharer_first = firsts(batch.sharer.lengths);
  const auto section_first = firsts(batch.section_counts);
  std::vector<std::vector<const FusedRun*>> runs(samples);
  for (const FusedRun& run : batch.fused) runs[at(run.sample)].push_back(&run);
  std::vector<int64_t> target(batch.receiver.tokens.size(), -1);
  for (size_t i = 0; i < batch.target_rows.size(); ++i) target[at(batch.target_rows[i])] = batch.target_ids[i];

  std::vector<Wave> waves;
  std::vector<int64_t> place(batch.receiver.tokens.size(), -1);  // of a batch row in the order of all waves
  int64_t placed = 0;
  size_t fused = 0;
  const int64_t most = samples == 0 ? 0 : *std::max_element(batch.section_counts.begin(), batch.section_counts.end());
  for (int64_t w = 0; w < most; ++w) {
    Wave wave;
    for (size_t s = 0; s < samples; ++s) {
      const int64_t count = batch.section_counts[s];
      if (w >= count) continue;
      const int64_t* ends = batch.section_ends.data() + section_first[s];
      const int64_t start = w == 0 ? 0 : ends[w - 1], end = ends[w];
      check(end > start && (w + 1 < count || end == batch.receiver.lengths[s]), "sections",
            "they do not ascend to the sample's end");
      SequenceRows sequence;
      for (int64_t row = 0; row < end; ++row) {
        const auto global = at(first[s] + row);
        if (row >= start) {
          const auto own = static_cast<int64_t>(wave.rows.size());
          place[global] = placed + own;
          sequence.queries.push_back(own);
          wave.rows.push_back(static_cast<int64_t>(global));
          wave.tokens.push_back(batch.receiver.tokens[global]);
          wave.positions.push_back(batch.receiver.positions[global]);
          wave.last.push_back(w + 1 == count);
          if (target[global] >= 0) {
            wave.targets.push_back(own);
            wave.target_ids.push_back(target[global]);
          }
        }
        sequence.keys.push_back(place[global]);
        sequence.positions.push_back(batch.receiver.positions[global]);
      }
      for (const FusedRun* run : runs[s]) {
        if (run->start < start || run->start >= end) continue;
        check(run->end <= end, "fused", "a run crosses sections");
        for (int64_t row = run->start; row < run->end; ++row) {
          wave.fused.push_back(place[at(first[s] + row)] - placed);
          wave.sharer.push_back(sharer_first[s] + run->sharer + row - run->start);
        }
        wave.runs.push_back(run->end - run->start);
        ++fused;
      }
      wave.sequences.push_back(std::move(sequence));
    }
    placed += static_cast<int64_t>(wave.rows.size());
    waves.push_back(std::move(wave));
  }
  check(fused == batch.fused.size(), "fused", "a run lies outside its sample");
  return waves;
}

}  // namespace c2c
