// What a piece of work costs: time of the processor and memory.
#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace caravan::test {

struct Cost {
  std::string outcome;
  double seconds = 0.0;  // of the processor
  std::int64_t peak_bytes = 0;
};

// In a process of its own, so that memory and a crash are its own.
template <typename Work>
Cost cost_of(const Work& work) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const std::string text = work();
    _exit(write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  close(ends[1]);
  Cost cost;
  char buffer[4096];
  for (ssize_t count = 0; (count = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    cost.outcome.append(buffer, static_cast<std::size_t>(count));
  }
  close(ends[0]);
  int status = -1;
  rusage use{};
  EXPECT_EQ(wait4(child, &status, 0, &use), child);
  EXPECT_EQ(status, 0) << "the process died";
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  cost.seconds = seconds(use.ru_utime) + seconds(use.ru_stime);
  cost.peak_bytes = std::int64_t{use.ru_maxrss} * 1024;
  return cost;
}

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized = __has_feature(address_sanitizer);
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace caravan::test
