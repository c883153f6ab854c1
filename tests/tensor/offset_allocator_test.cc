// The arithmetic half of allocator.h.
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <random>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/tensor/allocator.h"

namespace caravan {
namespace {

constexpr std::int64_t kUnit = OffsetAllocator::kAlignment;

TEST(OffsetAllocator, RoundsSizesUpAndGivesEmptyBlocksAnAddress) {
  OffsetAllocator offsets(10 * kUnit);
  EXPECT_EQ(offsets.allocate(1), 0);
  EXPECT_EQ(offsets.allocate(kUnit + 1), kUnit);
  EXPECT_EQ(offsets.allocate(0), 3 * kUnit);
  EXPECT_EQ(offsets.allocate(0), 4 * kUnit);
  EXPECT_EQ(offsets.live_bytes(), 5 * kUnit);
  EXPECT_EQ(offsets.largest_free(), 5 * kUnit);
}

TEST(OffsetAllocator, TakesTheSmallestHoleThatFitsAndTheLowestOfEquals) {
  OffsetAllocator offsets(20 * kUnit);
  std::vector<std::int64_t> blocks;
  for (const std::int64_t units : {4, 1, 2, 1, 3, 1, 2, 1}) {  // holes of 4, 2, 3, 2 once every other one is freed
    blocks.push_back(offsets.allocate(units * kUnit));
  }
  for (const std::size_t i : {0, 2, 4, 6}) {
    offsets.free(blocks[i]);
  }
  EXPECT_EQ(offsets.allocate(2 * kUnit), blocks[2]);
  EXPECT_EQ(offsets.allocate(2 * kUnit), blocks[6]);
  EXPECT_EQ(offsets.allocate(2 * kUnit), blocks[4]);
  EXPECT_EQ(offsets.allocate(4 * kUnit), blocks[0]);
}

TEST(OffsetAllocator, FullMeansMinusOneAndChangesNothing) {
  OffsetAllocator offsets(4 * kUnit);
  EXPECT_EQ(offsets.allocate(4 * kUnit + 1), -1);
  EXPECT_EQ(offsets.allocate(std::numeric_limits<std::int64_t>::max()), -1);
  EXPECT_EQ(offsets.live_bytes(), 0);
  EXPECT_EQ(offsets.high_water(), 0);
  EXPECT_EQ(offsets.allocate(4 * kUnit), 0);
  EXPECT_EQ(offsets.allocate(0), -1);
  EXPECT_EQ(offsets.largest_free(), 0);
}

TEST(OffsetAllocator, ACapacityIsRoundedDown) {
  OffsetAllocator offsets(2 * kUnit - 1);
  EXPECT_EQ(offsets.capacity(), kUnit);
  EXPECT_EQ(OffsetAllocator(kUnit - 1).allocate(0), -1);
  EXPECT_EQ(OffsetAllocator(0).largest_free(), 0);
}

TEST(OffsetAllocator, RefusesNonsense) {
  EXPECT_THROW(OffsetAllocator(-1), ShapeError);
  OffsetAllocator offsets(4 * kUnit);
  EXPECT_THROW(offsets.allocate(-1), ShapeError);
  const std::int64_t block = offsets.allocate(2 * kUnit);
  EXPECT_THROW(offsets.free(block + kUnit), ShapeError);
  EXPECT_THROW(offsets.free(-1), ShapeError);
  offsets.free(block);
  EXPECT_THROW(offsets.free(block), ShapeError);
}

TEST(OffsetAllocator, HighWaterIsTheLargestEndAndCanBeReset) {
  OffsetAllocator offsets(10 * kUnit);
  const std::int64_t low = offsets.allocate(2 * kUnit);
  const std::int64_t middle = offsets.allocate(3 * kUnit);
  const std::int64_t high = offsets.allocate(kUnit);
  offsets.free(high);
  offsets.free(low);
  EXPECT_EQ(offsets.live_bytes(), 3 * kUnit);
  EXPECT_EQ(offsets.high_water(), 6 * kUnit);
  offsets.reset_high_water();
  EXPECT_EQ(offsets.high_water(), 5 * kUnit);  // the hole below the live block counts
  offsets.free(middle);
  offsets.reset_high_water();
  EXPECT_EQ(offsets.high_water(), 0);
}

// The contract, spelt out over an array of units.
class Model {
 public:
  explicit Model(int units) : used_(static_cast<std::size_t>(units), false) {}

  std::int64_t allocate(std::int64_t bytes) {
    const int wanted = std::max(1, static_cast<int>((bytes + kUnit - 1) / kUnit));
    int best = -1;
    int best_size = std::numeric_limits<int>::max();
    for_each_hole([&](int begin, int size) {
      if (size >= wanted && size < best_size) {
        best = begin;
        best_size = size;
      }
    });
    if (best < 0) {
      return -1;
    }
    set(best, wanted, true);
    blocks_[best] = wanted;
    high_water_ = std::max(high_water_, best + wanted);
    return best * kUnit;
  }

  void free(std::int64_t offset) {
    const int begin = static_cast<int>(offset / kUnit);
    set(begin, blocks_.at(begin), false);
    blocks_.erase(begin);
  }

  std::int64_t live_bytes() const { return std::count(used_.begin(), used_.end(), true) * kUnit; }
  std::int64_t high_water() const { return high_water_ * kUnit; }
  std::int64_t largest_free() const {
    int largest = 0;
    for_each_hole([&](int, int size) { largest = std::max(largest, size); });
    return largest * kUnit;
  }
  void reset_high_water() {
    high_water_ = 0;
    for (const auto& [begin, size] : blocks_) {
      high_water_ = std::max(high_water_, begin + size);
    }
  }

 private:
  void set(int begin, int size, bool value) {
    for (int i = begin; i < begin + size; ++i) {
      ASSERT_NE(used_[static_cast<std::size_t>(i)], value) << "blocks overlap";
      used_[static_cast<std::size_t>(i)] = value;
    }
  }
  template <typename Body>
  void for_each_hole(const Body& body) const {
    for (std::size_t begin = 0; begin < used_.size();) {
      std::size_t end = begin;
      while (end < used_.size() && !used_[end]) {
        ++end;
      }
      if (end > begin) {
        body(static_cast<int>(begin), static_cast<int>(end - begin));
      }
      begin = std::max(end, begin + 1);
    }
  }

  std::vector<bool> used_;
  std::map<int, int> blocks_;
  int high_water_ = 0;
};

TEST(OffsetAllocator, BehavesAsItsContractSpeltOut) {
  constexpr int kUnits = 200;
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    OffsetAllocator offsets(kUnits * kUnit);
    Model model(kUnits);
    std::vector<std::int64_t> live;
    for (int step = 0; step < 3000; ++step) {
      const unsigned choice = random() % 100;
      if (choice < 52 || live.empty()) {
        const std::int64_t most = random() % 4 == 0 ? 60 * kUnit : 8 * kUnit;
        const std::int64_t bytes = static_cast<std::int64_t>(random()) % most;
        const std::int64_t offset = offsets.allocate(bytes);
        ASSERT_EQ(offset, model.allocate(bytes)) << "seed " << seed << ", step " << step;
        if (offset >= 0) {
          live.push_back(offset);
        }
      } else if (choice < 99) {
        const std::size_t pick = random() % live.size();
        offsets.free(live[pick]);
        model.free(live[pick]);
        live[pick] = live.back();
        live.pop_back();
      } else {
        offsets.reset_high_water();
        model.reset_high_water();
      }
      ASSERT_EQ(offsets.live_bytes(), model.live_bytes());
      ASSERT_EQ(offsets.high_water(), model.high_water());
      ASSERT_EQ(offsets.largest_free(), model.largest_free());
    }
    for (const std::int64_t offset : live) {
      offsets.free(offset);
    }
    EXPECT_EQ(offsets.live_bytes(), 0);
    EXPECT_EQ(offsets.largest_free(), kUnits * kUnit) << "holes did not grow together";
  }
}

}  // namespace
}  // namespace caravan
