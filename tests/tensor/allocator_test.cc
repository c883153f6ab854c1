#include "caravan/tensor/allocator.h"

#include <gtest/gtest.h>

#include <map>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/base/threads.h"
#include "tests/support/scratch.h"

#if defined(__SANITIZE_ADDRESS__)
#define CARAVAN_TEST_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CARAVAN_TEST_POISON 1
#endif
#endif
#ifdef CARAVAN_TEST_POISON
#include <sanitizer/asan_interface.h>
#endif

namespace caravan {
namespace {

SegmentUse of(const MemoryUse& use, Segment segment) {
  return use.segments[static_cast<std::size_t>(segment)];
}

TEST(Allocator, TensorsAreAlignedDistinctAndWritable) {
  const auto allocator = Allocator::host(1 << 20);
  const Tensor a = allocator->allocate(DType::kF32, {3, 5}, Segment::kWeights);
  const Tensor b = allocator->allocate(DType::kU8, {0}, Segment::kWeights);
  const Tensor c = allocator->allocate(DType::kU8, {0}, Segment::kWeights);
  EXPECT_EQ(a.device(), Device{});
  EXPECT_TRUE(a.contiguous());
  for (const Tensor* tensor : {&a, &b, &c}) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor->address()) % OffsetAllocator::kAlignment, 0U);
  }
  EXPECT_NE(b.address(), c.address());
  std::memset(a.address(), 0x5a, static_cast<std::size_t>(a.bytes()));
  EXPECT_EQ(a.address()[a.bytes() - 1], std::byte{0x5a});
}

TEST(Allocator, ABlockIsGivenBackWithItsLastView) {
  const auto allocator = Allocator::host(1 << 20);
  Tensor view;
  {
    const Tensor tensor = allocator->allocate(DType::kF32, {4, 16}, Segment::kActivations);
    view = tensor.row_range(1, 2);
  }
  EXPECT_EQ(allocator->use().live_bytes, 256);
  view = Tensor();
  EXPECT_EQ(allocator->use().live_bytes, 0);
  EXPECT_EQ(allocator->use().peak_bytes, 256);
}

TEST(Allocator, ATensorKeepsItsAllocatorAlive) {
  auto allocator = Allocator::host(1 << 20);
  const std::weak_ptr<Allocator> watcher = allocator;
  Tensor tensor = allocator->allocate(DType::kU8, {100}, Segment::kWorkspace);
  allocator.reset();
  EXPECT_FALSE(watcher.expired());
  std::memset(tensor.address(), 1, 100);
  tensor = Tensor();
  EXPECT_TRUE(watcher.expired());
}

TEST(Allocator, AccountsBySegment) {
  const auto allocator = Allocator::host(1 << 20);
  const Tensor weights = allocator->allocate(DType::kU8, {1000}, Segment::kWeights);  // 1024 with its rounding
  Tensor first = allocator->allocate(DType::kU8, {640}, Segment::kActivations);
  first = Tensor();
  const Tensor second = allocator->allocate(DType::kU8, {128}, Segment::kActivations);
  const Tensor cache = allocator->allocate(DType::kU8, {64}, Segment::kKvCache);
  MemoryUse use = allocator->use();
  EXPECT_EQ(of(use, Segment::kWeights).live_bytes, 1024);
  EXPECT_EQ(of(use, Segment::kActivations).live_bytes, 128);
  EXPECT_EQ(of(use, Segment::kActivations).peak_bytes, 640);
  EXPECT_EQ(of(use, Segment::kKvCache).peak_bytes, 64);
  EXPECT_EQ(of(use, Segment::kOptimizer).peak_bytes, 0);
  EXPECT_EQ(use.live_bytes, 1216);
  EXPECT_EQ(use.peak_bytes, 1664);
  EXPECT_EQ(use.high_water, 1664);
  EXPECT_EQ(use.capacity, 1 << 20);
  allocator->reset_peaks();
  use = allocator->use();
  EXPECT_EQ(of(use, Segment::kActivations).peak_bytes, 128);
  EXPECT_EQ(use.peak_bytes, 1216);
  EXPECT_EQ(use.high_water, 1216);
}

TEST(Allocator, OutOfMemoryNamesRequestTableAndWayOut) {
  const auto allocator = Allocator::host(1 << 20);
  const Tensor weights = allocator->allocate(DType::kU8, {1 << 19}, Segment::kWeights);
  const std::string message = test::message_of<OutOfMemoryError>([&] {
    allocator->allocate(DType::kF32, {1024, 256}, Segment::kActivations);
  });
  for (const char* part :
       {"1,048,576 bytes for activations (f32 [1024, 256])", "host", "524,288 of 1,048,576 bytes are free",
        "run fewer tokens at a time", "weights", "KV cache", "high water", "capacity"}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << " expected in: " << message;
  }
  EXPECT_EQ(allocator->use().live_bytes, 1 << 19);
  EXPECT_NO_THROW(allocator->allocate(DType::kF32, {1024, 128}, Segment::kActivations));
}

TEST(Allocator, ImpossibleSizesAreOutOfMemory) {
  const auto allocator = Allocator::host(1 << 20);
  const Shape largest = {std::int64_t{1} << 62};
  EXPECT_THROW(allocator->allocate(DType::kF64, largest, Segment::kWeights), OutOfMemoryError);
  EXPECT_THROW(allocator->allocate(DType::kU8, largest, Segment::kWeights), OutOfMemoryError);
  EXPECT_THROW(Allocator::meta()->allocate(DType::kF64, largest, Segment::kWeights), OutOfMemoryError);
  EXPECT_THROW(Allocator::host(-1), ShapeError);
  EXPECT_THROW(Allocator::meta(-1), ShapeError);
  EXPECT_THROW(Allocator::host(std::int64_t{1} << 60), OutOfMemoryError);  // beyond x86-64's address range
}

TEST(Allocator, TheDefaultSlabIsTheMemoryThatMayBeUsed) {
  const auto allocator = Allocator::host();
  EXPECT_LE(allocator->use().capacity, usable_memory() + OffsetAllocator::kAlignment);
  EXPECT_GT(allocator->use().capacity, 0);
}

TEST(Allocator, ASegmentHasANameAndALineOfTheTable) {
  MemoryUse use;
  use.segments[0] = {.live_bytes = 1234567, .peak_bytes = 2345678};
  use.capacity = 9437184;
  const std::string table = format_table(use);
  for (int i = 0; i < kSegmentCount; ++i) {
    EXPECT_NE(table.find(std::string(to_string(static_cast<Segment>(i))) + " "), std::string::npos) << table;
  }
  EXPECT_STREQ(to_string(Segment::kKvCache), "KV cache");
  EXPECT_NE(table.find("1,234,567"), std::string::npos) << table;
  EXPECT_NE(table.find("2,345,678"), std::string::npos) << table;
  EXPECT_NE(table.find("9,437,184"), std::string::npos) << table;
}

// What a dry run rests on: the meta slab gives the offsets and the account of a host slab.
TEST(Allocator, MetaPredictsHost) {
  const auto host = Allocator::host(1 << 22);
  const auto meta = Allocator::meta();
  std::mt19937 random(5);
  std::vector<Tensor> on_host;
  std::vector<Tensor> on_meta;
  const std::byte* host_base = nullptr;
  const std::byte* meta_base = nullptr;
  for (int step = 0; step < 2000; ++step) {
    if (on_host.size() < 40 && (on_host.empty() || random() % 2 == 0)) {
      const Shape shape = {static_cast<std::int64_t>(random() % 100), static_cast<std::int64_t>(random() % 100)};
      const auto segment = static_cast<Segment>(random() % kSegmentCount);
      on_host.push_back(host->allocate(DType::kBF16, shape, segment));
      on_meta.push_back(meta->allocate(DType::kBF16, shape, segment));
      host_base = step == 0 ? on_host[0].address() : host_base;
      meta_base = step == 0 ? on_meta[0].address() : meta_base;
      ASSERT_EQ(on_host.back().address() - host_base, on_meta.back().address() - meta_base);
      ASSERT_EQ(on_meta.back().device(), (Device{DeviceKind::kMeta, 0}));
      ASSERT_NE(on_meta.back().address(), nullptr);
    } else {
      const auto pick = static_cast<std::ptrdiff_t>(random() % on_host.size());
      on_host.erase(on_host.begin() + pick);
      on_meta.erase(on_meta.begin() + pick);
    }
  }
  EXPECT_EQ(host->use().peak_bytes, meta->use().peak_bytes);
  EXPECT_EQ(host->use().high_water, meta->use().high_water);
  EXPECT_EQ(host->use().live_bytes, meta->use().live_bytes);
}

TEST(Allocator, MetaHoldsModelsOfAnySize) {
  const auto allocator = Allocator::meta();
  const Tensor huge = allocator->allocate(DType::kF32, {1000000, 1000000}, Segment::kWeights);
  EXPECT_EQ(allocator->use().live_bytes, 4000000000000);
  EXPECT_THROW(Allocator::meta(1 << 20)->allocate(DType::kF32, {1 << 20}, Segment::kWeights), OutOfMemoryError);
}

TEST(Allocator, SeveralThreadsMayShareIt) {
  const auto allocator = Allocator::host(1 << 24);
  std::vector<std::thread> threads;
  for (int id = 0; id < 4; ++id) {
    threads.emplace_back([&allocator, id] {
      std::mt19937 random(static_cast<unsigned>(id));
      std::vector<Tensor> live;
      for (int step = 0; step < 2000; ++step) {
        Tensor tensor =
            allocator->allocate(DType::kU8, {static_cast<std::int64_t>(random() % 3000) + 1}, Segment::kActivations);
        std::memset(tensor.address(), id, static_cast<std::size_t>(tensor.bytes()));
        live.push_back(tensor);
        if (live.size() > 20) {
          const Tensor& oldest = live.front();
          for (std::int64_t i = 0; i < oldest.bytes(); ++i) {
            ASSERT_EQ(oldest.address()[i], static_cast<std::byte>(id)) << "another thread wrote here";
          }
          live.erase(live.begin());
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(allocator->use().live_bytes, 0);
}

#ifdef CARAVAN_TEST_POISON
TEST(Allocator, FreeBlocksAndTailsArePoisoned) {
  const auto allocator = Allocator::host(1 << 20);
  Tensor tensor = allocator->allocate(DType::kU8, {100}, Segment::kActivations);
  const std::byte* address = tensor.address();
  EXPECT_FALSE(__asan_address_is_poisoned(address + 99));
  EXPECT_TRUE(__asan_address_is_poisoned(address + 104));
  tensor = Tensor();
  EXPECT_TRUE(__asan_address_is_poisoned(address));
  tensor = allocator->allocate(DType::kU8, {128}, Segment::kActivations);
  ASSERT_EQ(tensor.address(), address);
  EXPECT_FALSE(__asan_address_is_poisoned(address + 127));
}
#endif

TEST(Allocator, ATrailTellsWhatWasAllocatedAndWhetherItIsFree) {
  const auto allocator = Allocator::host(1 << 20);
  const auto bytes = [&](std::int64_t count) { return allocator->allocate(DType::kU8, {count}, Segment::kWorkspace); };
  const Tensor before = bytes(100);  // 128 with its rounding
  allocator->begin_trail();
  Tensor kept = bytes(64);
  {
    const Tensor passing = bytes(1000);
    const Tensor other = bytes(200);
  }
  const Tensor again = bytes(64);
  const AllocationTrail trail = allocator->end_trail();
  EXPECT_EQ(trail.ranges, (std::map<std::int64_t, std::int64_t>{{128, 128 + 64 + 1024 + 256}}));
  EXPECT_EQ(trail.left_bytes, 128);
  EXPECT_FALSE(allocator->is_free(trail));
  kept = Tensor();
  EXPECT_FALSE(allocator->is_free(trail));
  { const Tensor moved = again; }
  EXPECT_FALSE(allocator->is_free(trail)) << "again is there still";
}

TEST(Allocator, ATrailIsFreeWhenNothingStandsOnIt) {
  const auto allocator = Allocator::host(1 << 20);
  const auto bytes = [&](std::int64_t count) { return allocator->allocate(DType::kU8, {count}, Segment::kWorkspace); };
  allocator->begin_trail();
  bytes(1000);
  const AllocationTrail trail = allocator->end_trail();
  EXPECT_EQ(trail.left_bytes, 0);
  EXPECT_TRUE(allocator->is_free(trail));
  Tensor over = bytes(64);
  EXPECT_FALSE(allocator->is_free(trail));
  over = Tensor();
  EXPECT_TRUE(allocator->is_free(trail));
  EXPECT_TRUE(allocator->end_trail().ranges.empty()) << "none was begun";
  const Tensor unnoted = bytes(64);
  EXPECT_TRUE(allocator->is_free(AllocationTrail{}));
}

}  // namespace
}  // namespace caravan
