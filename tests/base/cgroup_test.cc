#include "caravan/base/cgroup.h"

#include <gtest/gtest.h>

#include "tests/support/scratch.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

// A file system root with the given files.
class FakeRoot : public testing::Test {
 protected:
  void put(const std::string& path, const std::string& text) {
    const fs::path file = scratch_.path() / path;
    fs::create_directories(file.parent_path());
    test::write_file(file, text);
  }
  CgroupLimits limits() const { return read_cgroup_limits(scratch_.path()); }

  test::ScratchDirectory scratch_;
};

constexpr const char* kUnifiedMount =
    "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n"
    "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

TEST_F(FakeRoot, NothingMountedLimitsNothing) {
  EXPECT_FALSE(limits().cpus);
  EXPECT_FALSE(limits().memory_bytes);
}

TEST_F(FakeRoot, UnifiedLimitsAreRead) {
  put("proc/self/mountinfo", kUnifiedMount);
  put("proc/self/cgroup", "0::/job\n");
  put("sys/fs/cgroup/job/cpu.max", "150000 100000\n");
  put("sys/fs/cgroup/job/memory.max", "1073741824\n");
  EXPECT_EQ(limits().cpus, 1.5);
  EXPECT_EQ(limits().memory_bytes, 1073741824);
}

TEST_F(FakeRoot, MaxMeansNoLimit) {
  put("proc/self/mountinfo", kUnifiedMount);
  put("proc/self/cgroup", "0::/job\n");
  put("sys/fs/cgroup/job/cpu.max", "max 100000\n");
  put("sys/fs/cgroup/job/memory.max", "max\n");
  EXPECT_FALSE(limits().cpus);
  EXPECT_FALSE(limits().memory_bytes);
}

TEST_F(FakeRoot, TheLowestAncestorBinds) {
  put("proc/self/mountinfo", kUnifiedMount);
  put("proc/self/cgroup", "0::/a/b/c\n");
  put("sys/fs/cgroup/a/cpu.max", "400000 100000\n");
  put("sys/fs/cgroup/a/memory.max", "1000\n");
  put("sys/fs/cgroup/a/b/cpu.max", "200000 100000\n");
  put("sys/fs/cgroup/a/b/memory.max", "2000\n");
  put("sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
  put("sys/fs/cgroup/a/b/c/memory.max", "3000\n");
  put("sys/fs/cgroup/a/b/sibling/memory.max", "1\n");
  EXPECT_EQ(limits().cpus, 2.0);
  EXPECT_EQ(limits().memory_bytes, 1000);
}

TEST_F(FakeRoot, FirstVersionHierarchiesAreMatchedByController) {
  put("proc/self/mountinfo",
      "31 22 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
      "32 22 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
      "33 22 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
  put("proc/self/cgroup", "4:memory:/m/job\n3:cpu,cpuacct:/c/job\n2:cpuset:/s\n1:name=systemd:/x\n0::/ignored\n");
  put("sys/fs/cgroup/cpu,cpuacct/c/job/cpu.cfs_quota_us", "-1\n");
  put("sys/fs/cgroup/cpu,cpuacct/c/job/cpu.cfs_period_us", "100000\n");
  put("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "50000\n");
  put("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n");
  put("sys/fs/cgroup/memory/m/job/memory.limit_in_bytes", "9223372036854771712\n");  // the kernel's "no limit"
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "4096\n");
  put("sys/fs/cgroup/cpuset/s/memory.limit_in_bytes", "1\n");
  EXPECT_EQ(limits().cpus, 0.5);
  EXPECT_EQ(limits().memory_bytes, 4096);
}

TEST_F(FakeRoot, AContainersOwnGroupIsTheMountsRoot) {
  put("proc/self/mountinfo", "32 22 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
  put("proc/self/cgroup", "4:memory:/docker/abc/inner\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
  put("sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "1500\n");
  EXPECT_EQ(limits().memory_bytes, 1500);
}

TEST_F(FakeRoot, AGroupOutsideTheMountCountsAsItsRoot) {
  put("proc/self/mountinfo", "32 22 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
  put("proc/self/cgroup", "4:memory:/elsewhere\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
  EXPECT_EQ(limits().memory_bytes, 2000);
}

TEST_F(FakeRoot, BlanksInMountPointsAreUnescaped) {
  put("proc/self/mountinfo", "30 22 0:26 / /sys/my\\040groups rw - cgroup2 none rw\n");
  put("proc/self/cgroup", "0::/\n");
  put("sys/my groups/memory.max", "77\n");
  EXPECT_EQ(limits().memory_bytes, 77);
}

TEST_F(FakeRoot, BrokenFilesLimitNothing) {
  put("proc/self/mountinfo", std::string("nonsense\n - \n") + kUnifiedMount);
  put("proc/self/cgroup", "nonsense\n:\n0::/job\n");
  put("sys/fs/cgroup/job/cpu.max", "100000\n");
  put("sys/fs/cgroup/job/memory.max", "many\n");
  EXPECT_FALSE(limits().cpus);
  EXPECT_FALSE(limits().memory_bytes);
  put("sys/fs/cgroup/job/cpu.max", "100000 0\n");
  put("sys/fs/cgroup/job/memory.max", "-5\n");
  EXPECT_FALSE(limits().cpus);
  EXPECT_FALSE(limits().memory_bytes);
}

}  // namespace
}  // namespace caravan
