// What this machine can do: the yardsticks of speed.
#pragma once

#include <cstdint>

#include "caravan/ops/context.h"
#include "caravan/ops/weight.h"

namespace caravan::train {

// The yardstick of the mfu figure.  Times products of squares of 1024 with a packed weight in the type that the model
// computes in; on a GPU of up to 8192, as many as keep it busy for a millisecond.  Memory is the meter's own, outside the
// run's allocator.
class PeakMeter {
 public:
  // With the threads and instruction set of `like`.
  PeakMeter(const ops::Context& like, DType dtype);

  // Floating-point operations per second of the best product so far, after measuring for about `seconds` more (at least
  // one product, three the first time).  On a machine that is shared the first measurement may be low: measure again
  // now and then.
  double measure(double seconds);
  double best() const { return best_; }

 private:
  void multiply();

  ops::Context ctx_;
  Tensor x_;
  Tensor y_;
  ops::Weight weight_;
  double best_ = 0.0;
};

// Times reading memory: a tensor of at least four times the last cache level (and at least 256 MiB, and at most a
// quarter of what this process may use) by ops::sum_words, so that hardly any of it is still in a cache when its turn
// comes again.  Memory is the meter's own.
class ReadMeter {
 public:
  // With the threads and instruction set of `like`.  Throws OutOfMemoryError.
  explicit ReadMeter(const ops::Context& like);

  // Bytes per second of the best pass so far, after measuring for about `seconds` more (at least one pass, three the
  // first time).
  double measure(double seconds);
  double best() const { return best_; }
  std::int64_t bytes() const { return x_.bytes(); }

 private:
  ops::Context ctx_;
  Tensor x_;
  Tensor sum_;
  double best_ = 0.0;
};

}  // namespace caravan::train
