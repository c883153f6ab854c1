// A matrix that products multiply by: the plain tensor and the blocked copies a backend makes of it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "caravan/tensor/tensor.h"

namespace caravan::ops {

// The plain form is the truth.  Packed forms are made by the backend on first use, kept under a key of its choosing,
// accounted in Segment::kWeights, and dropped by changed().  Copying a Weight shares both.
class Weight {
 public:
  Weight() = default;
  // [out, in] of a linear layer or [vocab, hidden] of an embedding.
  explicit Weight(Tensor plain);

  const Tensor& plain() const { return plain_; }
  bool defined() const { return plain_.defined(); }
  // The plain form was written: packed forms are dropped.
  void changed();

  // For backends: the packed forms by key.
  std::map<std::string, Tensor>& packed() const { return *packed_; }

 private:
  Tensor plain_;
  std::shared_ptr<std::map<std::string, Tensor>> packed_;
};

}  // namespace caravan::ops
