// How many threads to use, and the one parallel loop of the CPU code.
#pragma once

#include <cstdint>
#include <functional>

namespace caravan {

// The cores this process may use: its affinity mask, lowered to the cgroup's CPU quota (v1 and v2, rounded up).  At
// least 1.
int usable_cores();

// Bytes of memory this process may use: physical memory, lowered to the cgroup's limit (v1 and v2) and RLIMIT_AS.
std::int64_t usable_memory();

// Ties the threads that parallel_for(threads, ...) and the libraries use for a caller of this thread to a processor each,
// but for the caller itself: whatever it starts (writers, loaders) inherits its mask and stays free.  False, and nothing
// is promised, where there are fewer processors than threads or the system refuses.
bool pin_threads(int threads);

// Calls body(begin, end) on `threads` threads so that the ranges cover [0, count) once.  Ranges are contiguous, as
// equal as `grain` allows (a multiple of it but for the last), and depend on nothing but the arguments: same split
// every run. One thread, or one range, runs in the caller.  An exception of a body is rethrown here after all have
// ended.
void parallel_for(int threads, std::int64_t count, std::int64_t grain,
                  const std::function<void(std::int64_t begin, std::int64_t end)>& body);

}  // namespace caravan
