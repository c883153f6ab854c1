#include "caravan/base/threads.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <atomic>
#include <limits>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/base/child.h"

namespace caravan {
namespace {

using Range = std::pair<std::int64_t, std::int64_t>;

std::set<Range> split(int threads, std::int64_t count, std::int64_t grain) {
  std::mutex mutex;
  std::multiset<Range> ranges;
  parallel_for(threads, count, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::lock_guard lock(mutex);
    ranges.emplace(begin, end);
  });
  const std::set<Range> distinct(ranges.begin(), ranges.end());
  EXPECT_EQ(distinct.size(), ranges.size());
  return distinct;
}

TEST(UsableCores, IsAtLeastOneAndFollowsTheAffinityMask) {
  EXPECT_GE(usable_cores(), 1);
  const std::string cores = test::in_child([] {
    cpu_set_t mask;
    sched_getaffinity(0, sizeof mask, &mask);
    int first = 0;
    while (!CPU_ISSET(first, &mask)) {
      ++first;
    }
    CPU_ZERO(&mask);
    CPU_SET(first, &mask);
    sched_setaffinity(0, sizeof mask, &mask);
    return std::to_string(usable_cores());
  });
  EXPECT_EQ(cores, "1");
}

TEST(PinThreads, TiesTheWorkersAndLeavesTheCallerFree) {
  if (usable_cores() < 2) {
    EXPECT_FALSE(pin_threads(2));
    return;
  }
  // A caller of its own: the pins last as long as its workers.
  std::thread([] {
    const auto processors = [] {
      cpu_set_t mask;
      sched_getaffinity(0, sizeof mask, &mask);
      return CPU_COUNT(&mask);
    };
    const int before = processors();
    EXPECT_TRUE(pin_threads(2));
    std::atomic<int> pinned = 0;
    parallel_for(2, 2, 1, [&](std::int64_t, std::int64_t) { pinned += processors() == 1 ? 1 : 0; });
    EXPECT_EQ(pinned, 1);
    EXPECT_EQ(processors(), before);
    std::thread([&] { EXPECT_EQ(processors(), before); }).join();
  }).join();
  EXPECT_FALSE(pin_threads(1));
  EXPECT_FALSE(pin_threads(1 << 20));
}

TEST(UsableMemory, FollowsTheAddressSpaceLimit) {
  EXPECT_GT(usable_memory(), 0);
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer's own address space is beyond any limit";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
  GTEST_SKIP() << "AddressSanitizer's own address space is beyond any limit";
#endif
#endif
  const rlim_t limit = static_cast<rlim_t>(usable_memory()) / 2;
  const std::string bytes = test::in_child([limit] {
    const rlimit lowered{limit, limit};
    setrlimit(RLIMIT_AS, &lowered);
    return std::to_string(usable_memory());
  });
  EXPECT_EQ(bytes, std::to_string(limit));
}

TEST(ParallelFor, CoversTheCountOnceInContiguousRanges) {
  for (const int threads : {1, 2, 3, 7, 16}) {
    for (const std::int64_t count : {1, 2, 5, 64, 1000, 1001}) {
      for (const std::int64_t grain : {1, 3, 64, 5000}) {
        const std::set<Range> ranges = split(threads, count, grain);
        std::int64_t next = 0;
        std::int64_t shortest = std::numeric_limits<std::int64_t>::max();
        std::int64_t longest = 0;
        for (const auto& [begin, end] : ranges) {
          EXPECT_EQ(begin, next);
          EXPECT_LT(begin, end);
          EXPECT_EQ(begin % grain, 0);
          next = end;
          const std::int64_t grains = (end - begin + grain - 1) / grain;
          shortest = std::min(shortest, grains);
          longest = std::max(longest, grains);
        }
        EXPECT_EQ(next, count);
        EXPECT_LE(longest - shortest, 1);
        EXPECT_EQ(static_cast<std::int64_t>(ranges.size()),
                  std::min<std::int64_t>(threads, (count + grain - 1) / grain));
      }
    }
  }
}

TEST(ParallelFor, SplitsTheSameWayEveryTime) {
  const std::set<Range> expected = {{0, 4}, {4, 8}, {8, 10}};
  for (int run = 0; run < 20; ++run) {
    EXPECT_EQ(split(3, 10, 2), expected);
  }
}

TEST(ParallelFor, NothingToDoCallsNothing) {
  EXPECT_TRUE(split(4, 0, 1).empty());
  EXPECT_TRUE(split(4, -3, 1).empty());
}

TEST(ParallelFor, OddArgumentsCountAsOne) {
  EXPECT_EQ(split(0, 10, 0), (std::set<Range>{{0, 10}}));
  EXPECT_EQ(split(-1, 10, -7), (std::set<Range>{{0, 10}}));
}

TEST(ParallelFor, HugeCountsDoNotOverflow) {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const std::set<Range> ranges = split(4, most, std::int64_t{1} << 40);
  ASSERT_EQ(ranges.size(), 4U);
  EXPECT_EQ(ranges.begin()->first, 0);
  EXPECT_EQ(ranges.rbegin()->second, most);
}

TEST(ParallelFor, UsesAsManyThreadsAsAsked) {
  std::mutex mutex;
  std::set<std::thread::id> ids;
  std::atomic<int> arrived{0};
  parallel_for(3, 3, 1, [&](std::int64_t, std::int64_t) {
    {
      const std::lock_guard lock(mutex);
      ids.insert(std::this_thread::get_id());
    }
    for (++arrived; arrived < 3;) {  // ends only when three run at once
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(ids.size(), 3U);
}

TEST(ParallelFor, OneRangeRunsInTheCaller) {
  const std::thread::id caller = std::this_thread::get_id();
  parallel_for(8, 5, 100, [&](std::int64_t, std::int64_t) { EXPECT_EQ(std::this_thread::get_id(), caller); });
}

TEST(ParallelFor, RethrowsTheExceptionOfTheLowestRangeAfterAllHaveEnded) {
  std::atomic<int> ended{0};
  try {
    parallel_for(4, 4, 1, [&](std::int64_t begin, std::int64_t) {
      if (begin == 1) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));  // range 3 throws first in time
      }
      ++ended;
      if (begin == 1 || begin == 3) {
        throw std::runtime_error("range " + std::to_string(begin));
      }
    });
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "range 1");
  }
  EXPECT_EQ(ended, 4);
}

TEST(ParallelFor, NestedRunsInTheThreadThatCallsWithTheSameSplit) {
  std::mutex mutex;
  std::multiset<Range> inner;
  parallel_for(2, 2, 1, [&](std::int64_t, std::int64_t) {
    const std::thread::id outer = std::this_thread::get_id();
    parallel_for(3, 10, 2, [&](std::int64_t begin, std::int64_t end) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      const std::lock_guard lock(mutex);
      inner.emplace(begin, end);
    });
  });
  EXPECT_EQ(inner, (std::multiset<Range>{{0, 4}, {0, 4}, {4, 8}, {4, 8}, {8, 10}, {8, 10}}));
}

TEST(ParallelFor, WorksFromSeveralThreadsAtOnce) {
  std::vector<std::thread> callers;
  std::atomic<std::int64_t> total{0};
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&total] {
      for (int run = 0; run < 10; ++run) {
        parallel_for(2, 1000, 1, [&total](std::int64_t begin, std::int64_t end) { total += end - begin; });
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  EXPECT_EQ(total, 40000);
}

}  // namespace
}  // namespace caravan
