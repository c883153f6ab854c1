// The limits that control groups set on this process: the half of threads.h that tests play on trees of plain files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace caravan {

struct CgroupLimits {
  std::optional<double> cpus;                // quota / period, in processors
  std::optional<std::int64_t> memory_bytes;  // the hard limit
};

// The lowest limits between this process's group and the top of each hierarchy, v1 and v2.
// `root` stands for "/": proc/self/cgroup, proc/self/mountinfo and the mounted hierarchies are read below it.  What is
// missing or unreadable limits nothing.
CgroupLimits read_cgroup_limits(const std::filesystem::path& root = "/");

}  // namespace caravan
