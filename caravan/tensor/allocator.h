// Device memory out of one reserved slab, accounted by segment.
//
// An OffsetAllocator is arithmetic on [0, capacity): the same sequence of calls gives the same offsets everywhere,
// which is why a dry run on the meta device predicts a real run's peak to the byte.  An Allocator puts a slab behind
// it. A free is real at once: on the host, and on a CUDA device, where everything runs in the order of one stream.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "caravan/tensor/tensor.h"

namespace caravan {

// Chooses offsets in [0, capacity): the smallest free block that fits, the lowest of equals.  Every size is rounded up
// to kAlignment; a block of zero bytes takes kAlignment too, so that addresses are distinct.
class OffsetAllocator {
 public:
  static constexpr std::int64_t kAlignment = 64;

  // `capacity` is rounded down to kAlignment.  Throws ShapeError when it is negative.
  explicit OffsetAllocator(std::int64_t capacity);

  // The offset, or -1 when no free block is large enough.  Throws ShapeError when `bytes` is negative.
  std::int64_t allocate(std::int64_t bytes);
  // Gives back a block.  Throws ShapeError when none is allocated there.
  void free(std::int64_t offset);

  std::int64_t capacity() const { return capacity_; }
  std::int64_t live_bytes() const { return live_; }
  // The largest end of any block so far: what the slab really needed, holes included.
  std::int64_t high_water() const { return high_water_; }
  // Forgets the past: high_water() starts again from the blocks that are live now.
  void reset_high_water();
  std::int64_t largest_free() const;
  // Whether no block overlaps [begin, end), which lies in the capacity.
  bool is_free(std::int64_t begin, std::int64_t end) const;

 private:
  std::int64_t capacity_;
  std::int64_t live_ = 0;
  std::int64_t high_water_ = 0;
  std::map<std::int64_t, std::int64_t> live_blocks_;              // offset -> bytes
  std::map<std::int64_t, std::int64_t> free_blocks_;              // offset -> bytes
  std::set<std::pair<std::int64_t, std::int64_t>> free_by_size_;  // (bytes, offset)
};

enum class Segment { kWeights, kGradients, kOptimizer, kActivations, kWorkspace, kKvCache };
inline constexpr int kSegmentCount = 6;

// "weights", "gradients", "optimizer", "activations", "workspace", "KV cache"
const char* to_string(Segment segment);

struct SegmentUse {
  std::int64_t live_bytes = 0;
  std::int64_t peak_bytes = 0;  // the most this segment held at any moment
};

struct MemoryUse {
  std::array<SegmentUse, kSegmentCount> segments;
  std::int64_t live_bytes = 0;
  std::int64_t peak_bytes = 0;  // the most all segments held together
  std::int64_t high_water = 0;  // the slab's high-water mark, holes included
  std::int64_t capacity = 0;
};

// Places that were allocated in the course of something, whether they still are or not.
struct AllocationTrail {
  std::map<std::int64_t, std::int64_t> ranges;  // begin -> end, in bytes of the slab; apart from each other
  std::int64_t left_bytes = 0;                  // of them not given back when it ended
};

// The start-up table: a line a segment, then the totals.
std::string format_table(const MemoryUse& use);

// Tensors out of one slab.  Safe to call from several threads.  A tensor keeps its allocator alive and gives its block
// back when the last view of it is gone.
class Allocator : public std::enable_shared_from_this<Allocator> {
 public:
  // A slab of host memory: reserved now, backed by pages when first touched.  The default capacity is usable_memory(),
  // halved until the system grants it; a capacity that was named is had in full.
  // Throws OutOfMemoryError when the address range cannot be had.
  static std::shared_ptr<Allocator> host(std::int64_t capacity = 0);
  // A slab that does not exist: the dry run's.  Its addresses are never touched.  The default capacity is 2^60 bytes,
  // more than any machine's memory.  `index`: of the GPU whose work is tried, for those who ask what it can.
  static std::shared_ptr<Allocator> meta(std::int64_t capacity = 0, int index = 0);

  // A slab of device memory on CUDA device `index`, taken now.  The default capacity is what is free there less a
  // reserve for the libraries' own state; a capacity that was named is had in full.  The device is the calling thread's
  // from here on.  Throws UnsupportedError when the device cannot be used, OutOfMemoryError when the memory is not there.
  static std::shared_ptr<Allocator> cuda(int index, std::int64_t capacity = 0);
  // The default capacity of cuda().  Throws UnsupportedError when the device cannot be used.
  static std::int64_t cuda_capacity(int index);

  virtual ~Allocator();

  // A contiguous tensor of unspecified content, aligned to OffsetAllocator::kAlignment.
  // Throws OutOfMemoryError with the table of segments when the slab is full.
  Tensor allocate(DType dtype, const Shape& shape, Segment segment);

  const Device& device() const { return device_; }
  MemoryUse use() const;
  // Starts peak and high-water accounting again from what is live now.
  void reset_peaks();

  // From here to end_trail() every block that is allocated is noted.  One trail at a time.
  void begin_trail();
  AllocationTrail end_trail();
  // Whether nothing is allocated now where the trail went: work that was asked for there may be asked for again.
  bool is_free(const AllocationTrail& trail) const;

 protected:
  Allocator(Device device, std::byte* base, std::int64_t capacity);

 private:
  struct State;
  Device device_;
  std::unique_ptr<State> state_;
};

}  // namespace caravan
