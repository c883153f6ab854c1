#include "caravan/base/cgroup.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {
namespace {

namespace fs = std::filesystem;

// A mounted hierarchy: the subtree `group` of it is visible at `mount`.
struct Mount {
  bool unified = false;     // v2
  std::string controllers;  // v1: ",cpu,cpuacct," as super block options
  std::string group;
  std::string mount;
};

bool contains_word(const std::string& comma_list, std::string_view word) {
  std::istringstream words(comma_list);
  std::string candidate;
  while (std::getline(words, candidate, ',')) {
    if (candidate == word) {
      return true;
    }
  }
  return false;
}

// mountinfo writes blanks and backslashes of paths as three octal digits.
std::string unescape(const std::string& text) {
  const auto octal = [&text](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      result += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

// proc(5): "36 35 98:0 /group /mount rw,noatime master:1 - cgroup cgroup rw,memory".
std::vector<Mount> read_mounts(const fs::path& file) {
  std::vector<Mount> mounts;
  std::ifstream input(file);
  std::string line;
  while (std::getline(input, line)) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) {
      continue;
    }
    std::istringstream head(line.substr(0, dash));
    std::istringstream tail(line.substr(dash + 3));
    std::string skipped;
    std::string type;
    Mount mount;
    head >> skipped >> skipped >> skipped >> mount.group >> mount.mount;
    tail >> type >> skipped >> mount.controllers;
    if (type != "cgroup" && type != "cgroup2") {
      continue;
    }
    mount.unified = type == "cgroup2";
    mount.group = unescape(mount.group);
    mount.mount = unescape(mount.mount);
    mounts.push_back(mount);
  }
  return mounts;
}

std::string first_line(const fs::path& file) {
  std::ifstream input(file);
  std::string line;
  std::getline(input, line);
  return line;
}

std::optional<std::int64_t> number_in(const std::string& text) {
  std::istringstream input(text);
  std::int64_t number = 0;
  if (input >> number) {
    return number;
  }
  return std::nullopt;  // "max", or no such file
}

template <typename T>
void lower(std::optional<T>& limit, T candidate) {
  limit = limit ? std::min(*limit, candidate) : candidate;
}

// quota and period in microseconds; a quota of -1 is none.
void lower_cpus(CgroupLimits& limits, std::optional<std::int64_t> quota, std::optional<std::int64_t> period) {
  if (quota && period && *quota > 0 && *period > 0) {
    lower(limits.cpus, static_cast<double>(*quota) / static_cast<double>(*period));
  }
}

void lower_memory(CgroupLimits& limits, std::optional<std::int64_t> bytes) {
  if (bytes && *bytes > 0) {
    lower(limits.memory_bytes, *bytes);
  }
}

void apply_group(CgroupLimits& limits, const fs::path& directory, bool unified) {
  if (unified) {
    const std::string cpu = first_line(directory / "cpu.max");  // "max 100000" or "150000 100000"
    const std::size_t blank = cpu.find(' ');
    if (blank != std::string::npos) {
      lower_cpus(limits, number_in(cpu.substr(0, blank)), number_in(cpu.substr(blank)));
    }
    lower_memory(limits, number_in(first_line(directory / "memory.max")));
  } else {
    lower_cpus(limits, number_in(first_line(directory / "cpu.cfs_quota_us")),
               number_in(first_line(directory / "cpu.cfs_period_us")));
    lower_memory(limits, number_in(first_line(directory / "memory.limit_in_bytes")));
  }
}

// The group's path below the mount.  A container may see its own group as the mount's root while /proc/self/cgroup
// still names it from the host's top; what lies outside the mount cannot be read and counts as the mount's root.
fs::path below_mount(const std::string& group, const Mount& mount) {
  const fs::path relative = fs::path(group).lexically_relative(mount.group);
  if (relative.empty() || *relative.begin() == ".." || relative == ".") {
    return {};
  }
  return relative;
}

// From the process's group up to the mount: a limit of any ancestor binds.
void apply_hierarchy(CgroupLimits& limits, const fs::path& root, const std::string& group, const Mount& mount) {
  const fs::path top = root / fs::path(mount.mount).relative_path();
  for (fs::path below = below_mount(group, mount);; below = below.parent_path()) {
    apply_group(limits, below.empty() ? top : top / below, mount.unified);
    if (below.empty()) {
      return;
    }
  }
}

}  // namespace

CgroupLimits read_cgroup_limits(const fs::path& root) {
  CgroupLimits limits;
  const std::vector<Mount> mounts = read_mounts(root / "proc/self/mountinfo");
  std::ifstream groups(root / "proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {  // "4:cpu,cpuacct:/a/b" (v1) or "0::/a/b" (v2)
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) {
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    for (const Mount& mount : mounts) {
      const auto has = [&](const char* name) {
        return contains_word(controllers, name) && contains_word(mount.controllers, name);
      };
      if (controllers.empty() ? mount.unified : !mount.unified && (has("cpu") || has("memory"))) {
        apply_hierarchy(limits, root, group, mount);
      }
    }
  }
  return limits;
}

}  // namespace caravan
