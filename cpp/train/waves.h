// How a batch of prompts is read: section by section, because rows behind a fused section attend to what was fused.
// The sections of all samples that stand at the same place run together, as one wave; there is no padding.
#pragma once
#include <cstdint>
#include <vector>

#include "train/ragged.h"

namespace c2c {

// One model's rows, sample by sample.
struct Reading {
  std::vector<uint32_t> tokens, positions;
  std::vector<int64_t> lengths;  // rows of each sample
};

// A run of a sample's receiver rows (numbered from the sample's first) and where the sharer's row of the first one is.
struct FusedRun {
  int64_t sample = 0, start = 0, end = 0, sharer = 0;
};

struct FuserBatch {
  Reading receiver, sharer;
  std::vector<int64_t> section_counts;  // of each sample
  std::vector<int64_t> section_ends;    // row behind each section, sample after sample
  std::vector<FusedRun> fused;          // each inside one section
  std::vector<int64_t> target_rows,
      target_ids;  // receiver rows of the batch that are scored, and the tokens that follow
};

struct Wave {
  std::vector<int64_t> rows;  // receiver rows of the batch, in this wave's order
  std::vector<uint32_t> tokens, positions;
  // Keys are numbered by the rows of all waves so far, one wave after another.
  std::vector<SequenceRows> sequences;
  // Rows of this wave that are fused, and their rows of the sharer's batch; `runs`: how many belong to each run.
  std::vector<int64_t> fused, sharer, runs;
  std::vector<int64_t> targets, target_ids;  // rows of this wave that are scored
  std::vector<bool> last;                    // for each row: whether it lies in its sample's last section
};

// OPTION_INVALID where lengths, sections, runs or targets do not fit the samples.
void check_batch(const FuserBatch& batch);
// Samples [begin, end) of a batch that was checked.
FuserBatch part_of(const FuserBatch& batch, int64_t begin, int64_t end);
// OPTION_INVALID as above.
std::vector<Wave> plan_waves(const FuserBatch& batch);
// One causal sequence for each sample.
std::vector<SequenceRows> whole_sequences(const Reading& reading);

}  // namespace c2c
