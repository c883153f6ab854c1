#include "caravan/generate/cache.h"

#include <fmt/format.h>

#include "caravan/base/error.h"
#include "caravan/ops/elementwise.h"

namespace caravan::generate {

namespace {

// The first row of each sequence, and the end of the last.
std::vector<std::int64_t> begins_of(const std::vector<std::int64_t>& capacities) {
  std::vector<std::int64_t> begins = {0};
  for (const std::int64_t capacity : capacities) {
    if (capacity < 0) {
      throw ShapeError(fmt::format("DenseCache: a capacity of {} rows", capacity));
    }
    begins.push_back(begins.back() + capacity);
  }
  return begins;
}

}  // namespace

DenseCache::DenseCache(ops::Context& ctx, const CacheShape& shape, std::vector<std::int64_t> capacities)
    : begins_(begins_of(capacities)) {
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    const auto rows = [&] { return ctx.allocate(shape.dtype, {begins_.back(), shape.columns}, Segment::kKvCache); };
    layers_.push_back({rows(), rows(), std::vector<std::int64_t>(capacities.size(), 0)});
  }
}

void DenseCache::reserve(ops::Context& ctx, const std::vector<std::int64_t>& capacities) {
  const std::vector<std::int64_t> begins = begins_of(capacities);
  if (begins.size() != begins_.size()) {
    throw ShapeError(
        fmt::format("DenseCache: room for {} sequences in a cache of {}", capacities.size(), begins_.size() - 1));
  }
  for (Layer& layer : layers_) {
    for (std::size_t i = 0; i < capacities.size(); ++i) {
      if (layer.held[i] > capacities[i]) {
        throw ShapeError(
            fmt::format("DenseCache: room for {} rows of sequence {}, {} are held", capacities[i], i, layer.held[i]));
      }
    }
  }
  for (Layer& layer : layers_) {
    for (Tensor* rows : {&layer.key, &layer.value}) {
      const Tensor moved = ctx.allocate(rows->dtype(), {begins.back(), rows->shape()[1]}, Segment::kKvCache);
      for (std::size_t i = 0; i < capacities.size(); ++i) {
        if (layer.held[i] > 0) {
          ops::convert(ctx, moved.row_range(begins[i], begins[i] + layer.held[i]),
                       rows->row_range(begins_[i], begins_[i] + layer.held[i]));
        }
      }
      *rows = moved;
    }
  }
  begins_ = begins;
}

void DenseCache::set_held(std::size_t sequence, std::int64_t rows) {
  if (rows < 0 || rows > capacity(sequence)) {
    throw ShapeError(
        fmt::format("DenseCache: {} rows of sequence {}, there is room for {}", rows, sequence, capacity(sequence)));
  }
  for (Layer& layer : layers_) {
    layer.held[sequence] = rows;
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
  View view;
  view.key = kept.key;
  view.value = kept.value;
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
