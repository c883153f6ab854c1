// Sums over rows in two steps: blocks add stretches of rows, then the stretches are added in order, so that the result has the
// same bits every run.  For the .cu files of ops/cuda only.
#pragma once

#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {

// Into which the rows are cut, whatever their number.
inline constexpr unsigned kStretches = 64;

template <typename R>
__global__ void join_stretches_kernel(R* sums, const R* partial, std::int64_t columns, bool add) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= columns) {
    return;
  }
  R sum = 0;
  for (unsigned stretch = 0; stretch < kStretches; ++stretch) {
    sum += partial[stretch * columns + column];
  }
  sums[column] = add ? sums[column] + sum : sum;
}

// sums [columns] = (or +=) the sum over partial [kStretches, columns].
template <typename R>
void join_stretches(const char* what, R* sums, const R* partial, std::int64_t columns, bool add) {
  constexpr unsigned kThreads = 128;
  launch(what, join_stretches_kernel<R>, blocks_for(columns, kThreads), kThreads, 0, sums, partial, columns, add);
}

}  // namespace caravan::ops::cuda
