// Keys and values in one stretch of rows a sequence.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/autograd/kv_cache.h"

namespace caravan::generate {

struct CacheShape {
  std::int64_t layers = 0;
  std::int64_t columns = 0;  // kv_heads * head_dim
  DType dtype = DType::kF32;
};

// Memory is had at once and grows only when asked: two tensors [sum of capacities, columns] a layer in
// Segment::kKvCache.
class DenseCache final : public autograd::KvCache {
 public:
  // Room for capacities[i] rows of sequence i.  Throws ShapeError for a negative size, OutOfMemoryError.
  DenseCache(ops::Context& ctx, const CacheShape& shape, std::vector<std::int64_t> capacities);

  // Room for capacities[i] rows of sequence i from now on; what is held stays.  One layer after the other is moved, so
  // that only one is there twice.  Throws ShapeError when there is another number of sequences or less room than rows are
  // held; OutOfMemoryError, and the cache is of no use afterwards.
  void reserve(ops::Context& ctx, const std::vector<std::int64_t>& capacities);

  // What it takes of Segment::kKvCache for so many rows in all.
  static std::int64_t bytes(const CacheShape& shape, std::int64_t rows);

  // The rows of `layer`, for steps that append without the host (generate/step_graph.h); and how many rows of a sequence
  // are held from now on, when they have.  Throws ShapeError beyond its room.
  const Tensor& keys(int layer) const { return layers_.at(static_cast<std::size_t>(layer)).key; }
  const Tensor& values(int layer) const { return layers_.at(static_cast<std::size_t>(layer)).value; }
  std::int64_t begin(std::size_t sequence) const { return begins_.at(sequence); }
  std::int64_t capacity(std::size_t sequence) const { return begins_.at(sequence + 1) - begins_.at(sequence); }
  std::size_t sequences() const { return begins_.size() - 1; }
  void set_held(std::size_t sequence, std::int64_t rows);

  // Throws ShapeError when the layout has another number of sequences, begins beyond what is held of one, or does not
  // fit its capacity.
  View extend(ops::Context& ctx, int layer, const SequenceLayout& layout, const Tensor& key,
              const Tensor& value) override;

 private:
  struct Layer {
    Tensor key, value;               // [sum of capacities, columns]
    std::vector<std::int64_t> held;  // rows of each sequence
  };

  std::vector<std::int64_t> begins_;  // first row of each sequence, and the end of the last
  std::vector<Layer> layers_;
};

}  // namespace caravan::generate
