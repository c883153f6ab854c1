#include "caravan/tensor/allocator.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <optional>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/base/threads.h"
#include "caravan/tensor/cuda_memory.h"

// Under AddressSanitizer free blocks are poisoned: an activation that is read after its last view has gone is reported,
// as is a kernel that runs past its tensor.
#if defined(__SANITIZE_ADDRESS__)
#define CARAVAN_POISON_FREE_BLOCKS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CARAVAN_POISON_FREE_BLOCKS 1
#endif
#endif
#ifdef CARAVAN_POISON_FREE_BLOCKS
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) (static_cast<void>(address), static_cast<void>(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) (static_cast<void>(address), static_cast<void>(size))
#endif

namespace caravan {
namespace {

constexpr std::array<const char*, kSegmentCount> kSegmentNames = {"weights",     "gradients", "optimizer",
                                                                  "activations", "workspace", "KV cache"};

constexpr std::int64_t kSmallestSlab = std::int64_t{1} << 20;

// Of a GPU's memory, for what cuBLAS, cuDNN and the driver load when they are first used, and for meters of speed.
constexpr std::int64_t kCudaReserve = std::int64_t{5} << 29;

// Where the slab that does not exist begins: aligned, not null, and below what Linux maps for anyone by default.
constexpr std::uintptr_t kMetaBase = 4096;
// As large as leaves every address a pointer: a dry run may ask for any machine's memory.
constexpr std::int64_t kMetaCapacity = std::int64_t{1} << 60;

std::int64_t rounded_up(std::int64_t bytes) {
  constexpr std::int64_t kUnit = OffsetAllocator::kAlignment;
  return std::max((bytes + kUnit - 1) / kUnit, std::int64_t{1}) * kUnit;
}

constexpr std::int64_t kLargePage = std::int64_t{1} << 21;

// Address range without pages behind it: the system backs a page when it is first written.  It begins at a large page
// and asks for large pages, which spare most of a product's misses in the translation of addresses; a system that gives
// none, or an address space without room for the alignment, changes nothing but the speed.
std::byte* reserve(std::int64_t bytes) {
  const auto map = [](std::int64_t size) {
    void* address = mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? nullptr : static_cast<std::byte*>(address);
  };
  std::byte* const whole = bytes >= kLargePage ? map(bytes + kLargePage) : nullptr;
  if (whole == nullptr) {
    return map(bytes);
  }
  const std::int64_t before =
      (kLargePage - static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(whole) % kLargePage)) % kLargePage;
  if (before > 0) {
    munmap(whole, static_cast<std::size_t>(before));
  }
  const std::int64_t page = sysconf(_SC_PAGESIZE);
  munmap(whole + before + (bytes + page - 1) / page * page, static_cast<std::size_t>(kLargePage - before));
  (void)madvise(whole + before, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);
  return whole + before;
}

const char* advice(Segment segment) {
  switch (segment) {
    case Segment::kWeights:
      return "choose a smaller dtype or a smaller model, or a machine with more memory";
    case Segment::kGradients:
    case Segment::kOptimizer:
      return "choose a smaller model, or a machine with more memory";
    case Segment::kActivations:
    case Segment::kWorkspace:
      return "run fewer tokens at a time, or choose a machine with more memory";
    case Segment::kKvCache:
      return "allow fewer or shorter sequences at a time, or choose a machine with more memory";
  }
  return "choose a machine with more memory";
}

}  // namespace

const char* to_string(Segment segment) {
  return kSegmentNames[static_cast<std::size_t>(segment)];
}

std::string format_table(const MemoryUse& use) {
  const auto mib = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  std::string table = fmt::format("{:<12}{:>22}{:>22}{:>16}\n", "segment", "live bytes", "peak bytes", "peak MiB");
  const auto line = [&](const char* name, std::int64_t live, std::int64_t peak) {
    table += fmt::format("{:<12}{:>22}{:>22}{:>16.1f}\n", name, grouped(live), grouped(peak), mib(peak));
  };
  for (int i = 0; i < kSegmentCount; ++i) {
    const SegmentUse& segment = use.segments[static_cast<std::size_t>(i)];
    line(kSegmentNames[static_cast<std::size_t>(i)], segment.live_bytes, segment.peak_bytes);
  }
  line("together", use.live_bytes, use.peak_bytes);
  table += fmt::format("{:<12}{:>44}{:>16.1f}\n", "high water", grouped(use.high_water), mib(use.high_water));
  table += fmt::format("{:<12}{:>44}{:>16.1f}\n", "capacity", grouped(use.capacity), mib(use.capacity));
  return table;
}

struct Allocator::State {
  State(const Device& where, std::byte* slab, std::int64_t bytes)
      : device(where), base(slab), mapped_bytes(where.kind == DeviceKind::kHost ? bytes : 0), offsets(bytes) {}

  ~State() {
    if (device.kind == DeviceKind::kCuda) {
      cuda_memory::release(device.index, base);
    }
    if (mapped_bytes > 0) {
      ASAN_UNPOISON_MEMORY_REGION(base, static_cast<std::size_t>(touched));
      munmap(base, static_cast<std::size_t>(mapped_bytes));
    }
  }

  MemoryUse use() const {  // with the mutex held
    MemoryUse result;
    result.segments = segments;
    result.live_bytes = offsets.live_bytes();
    result.peak_bytes = peak_bytes;
    result.high_water = offsets.high_water();
    result.capacity = offsets.capacity();
    return result;
  }

  // The offset, or -1.
  std::int64_t take(std::int64_t bytes, Segment segment) {
    const std::lock_guard lock(mutex);
    const std::int64_t offset = offsets.allocate(bytes);
    if (offset < 0) {
      return -1;
    }
    const std::int64_t rounded = rounded_up(bytes);
    SegmentUse& account = segments[static_cast<std::size_t>(segment)];
    account.live_bytes += rounded;
    account.peak_bytes = std::max(account.peak_bytes, account.live_bytes);
    peak_bytes = std::max(peak_bytes, offsets.live_bytes());
    if (trail) {
      note(offset, offset + rounded);
    }
    if (mapped_bytes > 0) {
      touched = std::max(touched, offset + rounded);
      ASAN_UNPOISON_MEMORY_REGION(base + offset, static_cast<std::size_t>(bytes));
      ASAN_POISON_MEMORY_REGION(base + offset + bytes, static_cast<std::size_t>(rounded - bytes));
    }
    return offset;
  }

  void give_back(std::int64_t offset, std::int64_t bytes, Segment segment) {
    const std::lock_guard lock(mutex);
    const std::int64_t rounded = rounded_up(bytes);
    if (mapped_bytes > 0) {
      ASAN_POISON_MEMORY_REGION(base + offset, static_cast<std::size_t>(rounded));
    }
    offsets.free(offset);
    if (trail && noted.erase(offset) > 0) {
      trail->left_bytes -= rounded;
    }
    segments[static_cast<std::size_t>(segment)].live_bytes -= rounded;
  }

  // A block on the trail, joined with what it touches.
  void note(std::int64_t begin, std::int64_t end) {
    noted.insert(begin);
    trail->left_bytes += end - begin;
    auto& ranges = trail->ranges;
    auto next = ranges.upper_bound(begin);
    if (next != ranges.begin() && std::prev(next)->second >= begin) {
      next = std::prev(next);
    }
    while (next != ranges.end() && next->first <= end) {
      begin = std::min(begin, next->first);
      end = std::max(end, next->second);
      next = ranges.erase(next);
    }
    ranges.emplace(begin, end);
  }

  const Device device;
  std::byte* const base;
  const std::int64_t mapped_bytes;  // 0 for a slab that is not mapped memory of ours
  mutable std::mutex mutex;
  OffsetAllocator offsets;
  std::array<SegmentUse, kSegmentCount> segments{};
  std::int64_t peak_bytes = 0;
  std::int64_t touched = 0;  // the largest end of any block ever: what may carry poison
  std::optional<AllocationTrail> trail;
  std::set<std::int64_t> noted;  // offsets of blocks on the trail that are allocated still
};

Allocator::Allocator(Device device, std::byte* base, std::int64_t capacity)
    : device_(device), state_(std::make_unique<State>(device, base, capacity)) {}

Allocator::~Allocator() = default;

std::shared_ptr<Allocator> Allocator::host(std::int64_t capacity) {
  if (capacity < 0) {
    throw ShapeError(fmt::format("an allocator cannot have a capacity of {} bytes", capacity));
  }
  // A size that the caller named is a promise.  The default is a wish: where the system refuses (address space in use
  // already, strict overcommit), half of it may do.
  std::int64_t bytes = rounded_up(capacity > 0 ? capacity : std::max(usable_memory(), kSmallestSlab));
  std::byte* base = reserve(bytes);
  while (base == nullptr && capacity == 0 && bytes / 2 >= kSmallestSlab) {
    bytes = rounded_up(bytes / 2);
    base = reserve(bytes);
  }
  if (base == nullptr) {
    throw OutOfMemoryError(
        fmt::format("{} bytes of host address space were asked for and refused by the system; raise "
                    "the limit (ulimit -v) or end other programs",
                    grouped(bytes)));
  }
  try {
    return std::shared_ptr<Allocator>(new Allocator({DeviceKind::kHost, 0}, base, bytes));
  } catch (const std::bad_alloc&) {
    munmap(base, static_cast<std::size_t>(bytes));
    throw;
  }
}

std::shared_ptr<Allocator> Allocator::meta(std::int64_t capacity, int index) {
  if (capacity < 0 || capacity > kMetaCapacity) {
    throw ShapeError(fmt::format("a meta allocator cannot have a capacity of {} bytes", capacity));
  }
  return std::shared_ptr<Allocator>(new Allocator({DeviceKind::kMeta, index}, reinterpret_cast<std::byte*>(kMetaBase),
                                                  capacity > 0 ? capacity : kMetaCapacity));
}

std::shared_ptr<Allocator> Allocator::cuda(int index, std::int64_t capacity) {
  if (capacity < 0) {
    throw ShapeError(fmt::format("an allocator cannot have a capacity of {} bytes", capacity));
  }
  const std::int64_t free = cuda_memory::free_bytes(index);
  const std::int64_t bytes = rounded_up(capacity > 0 ? capacity : cuda_capacity(index));
  if (bytes < kSmallestSlab && capacity == 0) {
    throw OutOfMemoryError(fmt::format(
        "cuda:{} has {} bytes free, and {} are kept for its libraries, which leaves nothing to work with; end "
        "other programs that use it, or choose another device",
        index, grouped(free), grouped(kCudaReserve)));
  }
  std::byte* base = cuda_memory::reserve(index, bytes);
  if (base == nullptr) {
    throw OutOfMemoryError(fmt::format(
        "cuda:{} has {} bytes free and {} were asked for; end other programs that use it, or choose another "
        "device",
        index, grouped(free), grouped(bytes)));
  }
  try {
    return std::shared_ptr<Allocator>(new Allocator({DeviceKind::kCuda, index}, base, bytes));
  } catch (const std::bad_alloc&) {
    cuda_memory::release(index, base);
    throw;
  }
}

std::int64_t Allocator::cuda_capacity(int index) {
  return std::max<std::int64_t>(0, cuda_memory::free_bytes(index) - kCudaReserve);
}

Tensor Allocator::allocate(DType dtype, const Shape& shape, Segment segment) {
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(shape.elements(), std::int64_t{size_of(dtype)}, &bytes)) {
    bytes = std::numeric_limits<std::int64_t>::max();  // more than any capacity
  }
  const std::int64_t offset = state_->take(bytes, segment);
  if (offset < 0) {
    const std::lock_guard lock(state_->mutex);
    const OffsetAllocator& offsets = state_->offsets;
    throw OutOfMemoryError(fmt::format(
        "out of memory: {} bytes for {} ({} {}) do not fit on {}, where {} of {} bytes are free, {} of them in one "
        "piece; {}\n{}",
        grouped(bytes), to_string(segment), to_string(dtype), to_string(shape), to_string(device_),
        grouped(offsets.capacity() - offsets.live_bytes()), grouped(offsets.capacity()),
        grouped(offsets.largest_free()), advice(segment), format_table(state_->use())));
  }
  std::byte* const address = state_->base + offset;
  // Outside the lock: should the control block not be had, the deleter runs at once and takes the lock itself.
  std::shared_ptr<const void> owner(static_cast<const void*>(address),
                                    [self = shared_from_this(), offset, bytes, segment](const void*) {
                                      self->state_->give_back(offset, bytes, segment);
                                    });
  return Tensor(dtype, shape, device_, address, std::move(owner));
}

MemoryUse Allocator::use() const {
  const std::lock_guard lock(state_->mutex);
  return state_->use();
}

void Allocator::reset_peaks() {
  const std::lock_guard lock(state_->mutex);
  for (SegmentUse& segment : state_->segments) {
    segment.peak_bytes = segment.live_bytes;
  }
  state_->peak_bytes = state_->offsets.live_bytes();
  state_->offsets.reset_high_water();
}

void Allocator::begin_trail() {
  const std::lock_guard lock(state_->mutex);
  state_->trail.emplace();
  state_->noted.clear();
}

AllocationTrail Allocator::end_trail() {
  const std::lock_guard lock(state_->mutex);
  return std::exchange(state_->trail, std::nullopt).value_or(AllocationTrail{});
}

bool Allocator::is_free(const AllocationTrail& trail) const {
  const std::lock_guard lock(state_->mutex);
  return std::ranges::all_of(trail.ranges,
                             [&](const auto& range) { return state_->offsets.is_free(range.first, range.second); });
}

}  // namespace caravan
