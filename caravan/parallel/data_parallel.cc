#include "caravan/parallel/data_parallel.h"

#include <array>
#include <span>

#include "caravan/tensor/copy.h"

namespace caravan::parallel {

std::int64_t count_over_ranks(ops::Context& ctx, comm::Communicator& ranks, std::int64_t local) {
  if (ctx.dry_run()) {
    return local * ranks.size();  // nothing is exchanged: as if all ranks had as many
  }
  std::array<std::int64_t, 1> count{local};
  const Tensor tensor = ctx.allocate(DType::kI64, {1}, Segment::kWorkspace);
  copy_from_host(tensor, std::as_bytes(std::span(count)));
  ranks.all_reduce_sum(tensor);
  copy_to_host(std::as_writable_bytes(std::span(count)), tensor);
  return count[0];
}

void GradientReducer::unit_done(int unit) {
  const auto& buckets = store_->gradient_buckets();
  while (reduced_ < buckets.size() && buckets[reduced_].lowest_unit >= unit) {
    ranks_->all_reduce_sum(buckets[reduced_].flat);
    ++reduced_;
  }
}

void GradientReducer::finish() {
  unit_done(0);
  reduced_ = 0;
}

}  // namespace caravan::parallel
