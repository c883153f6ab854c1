// Data parallelism: every rank has the whole model (or stage) and its own micro-batches; gradients are summed over the
// ranks.
//
// Sums, never means: the loss is scaled by 1 over the valid targets of the whole global batch before the first forward,
// so ranks and micro-batches of unlike sizes count as their tokens do.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/autograd/parameter.h"
#include "caravan/comm/communicator.h"
#include "caravan/ops/context.h"

namespace caravan::parallel {

// The valid targets of all ranks together.  A collective.
std::int64_t count_over_ranks(ops::Context& ctx, comm::Communicator& ranks, std::int64_t local);

// Sums a store's gradients over ranks, bucket by bucket, as a backward completes them.
class GradientReducer {
 public:
  GradientReducer(autograd::WeightStore& store, comm::Communicator& ranks) : store_(&store), ranks_(&ranks) {}

  // The last backward through `unit` is done: every bucket that no lower unit adds to is summed now.  Units come in
  // descending order, the same on every rank.
  void unit_done(int unit);
  // Whatever is left.  Ready for the next step afterwards.
  void finish();

 private:
  autograd::WeightStore* store_;
  comm::Communicator* ranks_;
  std::size_t reduced_ = 0;  // buckets
};

}  // namespace caravan::parallel
