// A matrix that products multiply by: its elements and the blocked copies a backend makes of them, or blocks of codes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "caravan/quant/block_type.h"
#include "caravan/tensor/tensor.h"

namespace caravan::ops {

struct Context;

// The passes that read a packed form.
enum class WeightUse : unsigned { kForward = 1, kBackward = 2, kBoth = 3 };

// A form that a backend packed, and which passes have read it since.
struct PackedWeight {
  Tensor bytes;
  unsigned uses = 0;  // of WeightUse
};

// Elements that stand in a tensor are the truth.  Packed forms are made by the backend on first use, kept under a key of
// its choosing, accounted in Segment::kWeights, and dropped by changed() and release().  Copying a Weight shares all.
//
// Or it is rows of blocks where they lie, in a mapped file perhaps: then there is no tensor, products compute from the
// blocks, nothing is packed, and no gradient goes through it.
class Weight {
 public:
  Weight() = default;
  // [out, in] of a linear layer or [vocab, hidden] of an embedding, as products read it.
  explicit Weight(Tensor plain);
  // The elements of `master` rounded to `dtype`: what products read is made from it, and no rounded copy of the whole
  // stays beside the packed ones.  For matrices in training, whose master is there anyway.
  static Weight rounded(Tensor master, DType dtype);

  // Rows of blocks, the pieces one below the other, each of a type of its own; products take activations of `dtype`.
  // Throws ShapeError when there is no piece or one has another number of columns than the first.
  static Weight in_blocks(std::vector<quant::BlockMatrix> pieces, DType dtype);

  bool defined() const { return source_.defined() || is_in_blocks(); }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  bool is_in_blocks() const { return blocks_ != nullptr; }
  // Of a weight in blocks.
  const std::vector<quant::BlockMatrix>& blocks() const { return *blocks_; }
  // The tensor that is the truth: the plain form, or the master of a rounded one; undefined for blocks.
  const Tensor& source() const { return source_; }
  bool is_rounded() const { return source_.defined() && source_.dtype() != dtype_; }
  // What products read; undefined for a rounded weight and for blocks.
  const Tensor& plain() const { return plain_; }
  // plain(), or a rounded or dequantised copy that the caller holds.  Throws OutOfMemoryError.
  Tensor materialize(Context& ctx) const;
  // This weight; of a rounded one and of blocks, a weight over materialize().
  Weight with_plain(Context& ctx) const;

  // The source was written: packed forms are dropped.
  void changed();
  // Drops the forms that none but `use` has read: it does not need them again before the source changes.
  void release(WeightUse use) const;

  // For backends: the packed forms by key.
  std::map<std::string, PackedWeight>& packed() const { return *packed_; }

 private:
  Tensor source_, plain_;
  Shape shape_;
  std::shared_ptr<const std::vector<quant::BlockMatrix>> blocks_;
  DType dtype_ = DType::kF32;
  std::shared_ptr<std::map<std::string, PackedWeight>> packed_;
};

}  // namespace caravan::ops
