#include "caravan/generate/cache.h"

#include <fmt/format.h>

#include "caravan/base/error.h"
#include "caravan/ops/elementwise.h"

namespace caravan::generate {

DenseCache::DenseCache(ops::Context& ctx, const CacheShape& shape, std::vector<std::int64_t> capacities) {
  begins_.push_back(0);
  for (const std::int64_t capacity : capacities) {
    if (capacity < 0) {
      throw ShapeError(fmt::format("DenseCache: a capacity of {} rows", capacity));
    }
    begins_.push_back(begins_.back() + capacity);
  }
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    const auto rows = [&] { return ctx.allocate(shape.dtype, {begins_.back(), shape.columns}, Segment::kKvCache); };
    layers_.push_back({rows(), rows(), std::vector<std::int64_t>(capacities.size(), 0)});
  }
}

std::int64_t DenseCache::bytes(const CacheShape& shape, std::int64_t rows) {
  constexpr std::int64_t kUnit = OffsetAllocator::kAlignment;
  const std::int64_t blocks = (rows * shape.columns * size_of(shape.dtype) + kUnit - 1) / kUnit;
  return 2 * shape.layers * (blocks < 1 ? 1 : blocks) * kUnit;
}

autograd::KvCache::View DenseCache::extend(ops::Context& ctx, int layer, const SequenceLayout& layout,
                                           const Tensor& key, const Tensor& value) {
  Layer& kept = layers_.at(static_cast<std::size_t>(layer));
  if (layout.sequences.size() != kept.held.size()) {
    throw ShapeError(
        fmt::format("DenseCache: a pass of {} sequences for a cache of {}", layout.sequences.size(), kept.held.size()));
  }
  View view{kept.key, kept.value, {}};
  for (std::size_t i = 0; i < kept.held.size(); ++i) {
    const Sequence& sequence = layout.sequences[i];
    const std::int64_t length = sequence.first_position + sequence.length;
    if (sequence.first_position > kept.held[i] || length > begins_[i + 1] - begins_[i]) {
      throw ShapeError(fmt::format("DenseCache: sequence {} brings positions {} to {}, {} of {} rows are held", i,
                                   sequence.first_position, length, kept.held[i], begins_[i + 1] - begins_[i]));
    }
    kept.held[i] = length;
    if (sequence.length == 0) {
      continue;
    }
    const std::int64_t rows_end = sequence.begin + sequence.length;
    const std::int64_t first = begins_[i] + sequence.first_position;
    const std::int64_t end = begins_[i] + length;
    ops::convert(ctx, kept.key.row_range(first, end), key.row_range(sequence.begin, rows_end));
    ops::convert(ctx, kept.value.row_range(first, end), value.row_range(sequence.begin, rows_end));
    view.ranges.push_back({sequence.begin, rows_end, begins_[i], end, sequence.first_position});
  }
  return view;
}

}  // namespace caravan::generate
