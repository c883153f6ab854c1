#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "caravan/base/error.h"
#include "caravan/tensor/allocator.h"

namespace caravan {

OffsetAllocator::OffsetAllocator(std::int64_t capacity) : capacity_(capacity / kAlignment * kAlignment) {
  if (capacity < 0) {
    throw ShapeError(fmt::format("an allocator cannot have a capacity of {} bytes", capacity));
  }
  if (capacity_ > 0) {
    free_blocks_.emplace(0, capacity_);
    free_by_size_.emplace(capacity_, 0);
  }
}

std::int64_t OffsetAllocator::allocate(std::int64_t bytes) {
  if (bytes < 0) {
    throw ShapeError(fmt::format("a block cannot have {} bytes", bytes));
  }
  if (bytes > capacity_) {
    return -1;  // before rounding up, which might overflow
  }
  const std::int64_t rounded = std::max((bytes + kAlignment - 1) / kAlignment, std::int64_t{1}) * kAlignment;
  const auto best = free_by_size_.lower_bound({rounded, 0});
  if (best == free_by_size_.end()) {
    return -1;
  }
  const auto [size, offset] = *best;
  free_by_size_.erase(best);
  free_blocks_.erase(offset);
  if (size > rounded) {
    free_blocks_.emplace(offset + rounded, size - rounded);
    free_by_size_.emplace(size - rounded, offset + rounded);
  }
  live_blocks_.emplace(offset, rounded);
  live_ += rounded;
  high_water_ = std::max(high_water_, offset + rounded);
  return offset;
}

void OffsetAllocator::free(std::int64_t offset) {
  const auto block = live_blocks_.find(offset);
  if (block == live_blocks_.end()) {
    throw ShapeError(fmt::format("no block is allocated at offset {}", offset));
  }
  std::int64_t begin = offset;
  std::int64_t end = offset + block->second;
  live_ -= block->second;
  live_blocks_.erase(block);
  const auto absorb = [this](std::map<std::int64_t, std::int64_t>::iterator neighbour) {
    free_by_size_.erase({neighbour->second, neighbour->first});
    free_blocks_.erase(neighbour);
  };
  auto next = free_blocks_.lower_bound(offset);
  if (next != free_blocks_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == begin) {
      begin = previous->first;
      absorb(previous);
    }
  }
  if (next != free_blocks_.end() && next->first == end) {
    end += next->second;
    absorb(next);
  }
  free_blocks_.emplace(begin, end - begin);
  free_by_size_.emplace(end - begin, begin);
}

void OffsetAllocator::reset_high_water() {
  high_water_ = live_blocks_.empty() ? 0 : live_blocks_.rbegin()->first + live_blocks_.rbegin()->second;
}

bool OffsetAllocator::is_free(std::int64_t begin, std::int64_t end) const {
  const auto after = free_blocks_.upper_bound(begin);
  if (after == free_blocks_.begin()) {
    return false;
  }
  const auto block = std::prev(after);
  return end <= block->first + block->second;
}

std::int64_t OffsetAllocator::largest_free() const {
  return free_by_size_.empty() ? 0 : free_by_size_.rbegin()->first;
}

}  // namespace caravan
