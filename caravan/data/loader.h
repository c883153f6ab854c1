// Batches for one data rank, made ahead on a thread of their own.
//
// Row k goes to data rank k mod ranks.  The state is the number of the next row over all ranks, nothing else: a run
// saved on 4 ranks goes on on 2.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "caravan/data/rows.h"

namespace caravan::data {

struct LoaderOptions {
  std::int64_t micro_batch_rows = 1;  // rows of one micro-batch: training.local_batch_size
  std::int64_t micro_batches = 1;     // of one step, for this rank: gradient accumulation
  int rank = 0;
  int ranks = 1;
  std::int64_t next_row = 0;  // where to begin, over all ranks
  int prefetch = 2;           // steps made ahead
};

// One step's work of this rank.  Every micro-batch has micro_batch_rows * seq_len rows of activations.
struct StepBatch {
  std::vector<MicroBatch> micro_batches;
  std::int64_t next_row = 0;  // the state after it
  std::int64_t epoch = 0;     // of the step's first row over all ranks
};

class Loader {
 public:
  // `rows` must outlive it.  Throws ConfigError when the options contradict each other.
  Loader(const Rows& rows, const LoaderOptions& options);
  ~Loader();
  Loader(const Loader&) = delete;

  // The next step's batch; what went wrong in the thread is thrown here, and at every call after.  After the
  // last row: batches of padding.
  StepBatch next();
  // Seconds that calls of next() have waited so far.
  double waited_seconds() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace caravan::data
