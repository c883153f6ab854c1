#include "caravan/base/threads.h"

#include <omp.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "caravan/base/cgroup.h"

namespace caravan {
namespace {

// Machines may have more processors than a fixed cpu_set_t holds.
class CpuSet {
 public:
  explicit CpuSet(int capacity)
      : bytes_(CPU_ALLOC_SIZE(capacity)), set_(CPU_ALLOC(static_cast<std::size_t>(capacity))) {
    if (set_ != nullptr) {
      CPU_ZERO_S(bytes_, set_.get());
    }
  }
  cpu_set_t* get() const { return set_.get(); }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(cpu_set_t* set) const { CPU_FREE(set); }
  };
  std::size_t bytes_;
  std::unique_ptr<cpu_set_t, Free> set_;
};

// The processors of the calling thread's affinity mask, lowest first; none where the system does not say.  The kernel
// answers EINVAL until the set is large enough.
std::vector<int> processors_of_affinity() {
  std::vector<int> processors;
  for (int capacity = CPU_SETSIZE; capacity <= (1 << 20); capacity *= 2) {
    const CpuSet set(capacity);
    if (set.get() == nullptr) {
      break;
    }
    if (sched_getaffinity(0, set.bytes(), set.get()) == 0) {
      for (int processor = 0; processor < capacity; ++processor) {
        if (CPU_ISSET_S(static_cast<std::size_t>(processor), set.bytes(), set.get())) {
          processors.push_back(processor);
        }
      }
      break;
    }
    if (errno != EINVAL) {
      break;
    }
  }
  return processors;
}

int cores_of_affinity() {
  const std::vector<int> processors = processors_of_affinity();
  return processors.empty() ? static_cast<int>(std::thread::hardware_concurrency())
                            : static_cast<int>(processors.size());
}

}  // namespace

bool pin_threads(int threads) {
  const std::vector<int> processors = processors_of_affinity();
  if (threads < 2 || std::ssize(processors) < threads) {
    return false;
  }
  std::atomic<int> refused = 0;
#pragma omp parallel num_threads(threads)
  {
    if (const int worker = omp_get_thread_num(); worker > 0) {
      const int processor = processors[static_cast<std::size_t>(worker)];
      const CpuSet one(processor + 1);
      if (one.get() == nullptr) {
        ++refused;
      } else {
        CPU_SET_S(static_cast<std::size_t>(processor), one.bytes(), one.get());
        refused += sched_setaffinity(0, one.bytes(), one.get()) == 0 ? 0 : 1;
      }
    }
  }
  return refused == 0;
}

int usable_cores() {
  int cores = cores_of_affinity();
  if (const std::optional<double> quota = read_cgroup_limits().cpus; quota && *quota < cores) {
    cores = static_cast<int>(std::ceil(*quota));
  }
  return std::max(cores, 1);
}

std::int64_t usable_memory() {
  std::int64_t bytes = std::int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  if (const std::optional<std::int64_t> limit = read_cgroup_limits().memory_bytes) {
    bytes = std::min(bytes, *limit);
  }
  rlimit address_space{};
  if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY) {
    bytes = static_cast<std::int64_t>(std::min<rlim_t>(static_cast<rlim_t>(bytes), address_space.rlim_cur));
  }
  return bytes;
}

void parallel_for(int threads, std::int64_t count, std::int64_t grain,
                  const std::function<void(std::int64_t begin, std::int64_t end)>& body) {
  if (count <= 0) {
    return;
  }
  grain = std::max<std::int64_t>(grain, 1);
  const std::int64_t grains = (count - 1) / grain + 1;
  const std::int64_t ranges = std::min<std::int64_t>(std::max(threads, 1), grains);
  // The first `longer` ranges take one grain more than the others.
  const std::int64_t shorter = grains / ranges;
  const std::int64_t longer = grains % ranges;
  const auto begin_of = [&](std::int64_t range) {
    return range == ranges ? count : (range * shorter + std::min(range, longer)) * grain;
  };
  if (ranges == 1 || omp_in_parallel() != 0) {  // a nested loop keeps its split and runs it in the caller
    for (std::int64_t range = 0; range < ranges; ++range) {
      body(begin_of(range), begin_of(range + 1));
    }
    return;
  }
  // An exception may not leave an OpenMP region; the one of the lowest range is rethrown, whichever came first in time.
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(ranges));
#pragma omp parallel num_threads(static_cast <int>(ranges))
  {
    // OpenMP may grant fewer threads than asked for: each then takes several ranges.
    for (std::int64_t range = omp_get_thread_num(); range < ranges; range += omp_get_num_threads()) {
      try {
        body(begin_of(range), begin_of(range + 1));
      } catch (...) {
        failures[static_cast<std::size_t>(range)] = std::current_exception();
      }
    }
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) {
      std::rethrow_exception(failure);
    }
  }
}

}  // namespace caravan
