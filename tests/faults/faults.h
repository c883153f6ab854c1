// Runs a program with the faults of tests/faults/faults.cc and says how it ended: for tests of what is left on disk
// when a call fails, the disk fills or the program is killed.
//
// A test links nothing for it: `caravan_faults_for(<test>)` after caravan_test() names the library.  With sanitizers
// there is none, and faults_available() is false.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/scratch.h"

namespace caravan::test {

#ifdef CARAVAN_FAULTS_LIBRARY
constexpr const char* kFaultsLibrary = CARAVAN_FAULTS_LIBRARY;
#else
constexpr const char* kFaultsLibrary = "";
#endif

inline bool faults_available() {
  return *kFaultsLibrary != '\0';
}

// What faults.cc is to do; its head says what each field means.
struct FaultPlan {
  std::string call = {};  // empty: nothing fails, calls are only counted
  std::int64_t fail_at = 0;
  std::int64_t kill_at = 0;
  std::int64_t delay_ms = 0;  // the call sleeps instead of failing
  std::string error = {};     // "ENOSPC"; empty: the call's own default
  std::filesystem::path under = {};
  std::optional<std::int64_t> disk_bytes = {};
  std::filesystem::path trace = {};
};

struct ChildLimits {
  // Then SIGKILL, to what it started too.  Time that the child waited for a processor does not count: a busy machine is
  // no hang.
  std::chrono::milliseconds time{60'000};
  int signal = 0;  // sent once, this long after the start
  std::chrono::milliseconds signal_after{0};
  // Asked every few milliseconds with what the child has printed so far; it may send signals, or start others.
  std::function<void(pid_t child, const std::string& out)> watch = {};
};

struct ChildEnd {
  int status = -1;  // of exit; -1 when a signal ended it
  int signal = 0;   // that ended it
  bool timed_out = false;
  std::string out;
  std::string err;
  std::map<std::string, std::int64_t> counts;  // calls by kind; empty after a kill
};

namespace detail {

inline std::vector<std::string> environment_of(const FaultPlan& plan, const std::filesystem::path& counts,
                                               const std::vector<std::string>& more) {
  std::vector<std::string> all = more;
  if (faults_available()) {
    all.push_back(std::string("LD_PRELOAD=") + kFaultsLibrary);
    all.push_back("CARAVAN_FAULT_CALL=" + plan.call);
    all.push_back("CARAVAN_FAULT_AT=" + std::to_string(plan.fail_at));
    all.push_back("CARAVAN_FAULT_DELAY_MS=" + std::to_string(plan.delay_ms));
    all.push_back("CARAVAN_FAULT_KILL_AT=" + std::to_string(plan.kill_at));
    all.push_back("CARAVAN_FAULT_ERRNO=" + plan.error);
    all.push_back("CARAVAN_FAULT_UNDER=" + plan.under.string());
    all.push_back("CARAVAN_FAULT_TRACE=" + plan.trace.string());
    all.push_back("CARAVAN_FAULT_COUNT=" + counts.string());
    all.push_back("CARAVAN_FAULT_DISK_BYTES=" + (plan.disk_bytes ? std::to_string(*plan.disk_bytes) : ""));
  }
  for (char** one = environ; *one != nullptr; ++one) {
    const std::string text = *one;
    if (!text.starts_with("LD_PRELOAD=") && !text.starts_with("CARAVAN_FAULT_")) {
      all.push_back(text);
    }
  }
  return all;
}

inline std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) {
    out.push_back(text.data());
  }
  out.push_back(nullptr);
  return out;
}

// How long the child's first thread was ready to run and had no processor; 0 where Linux does not say.
inline std::chrono::nanoseconds starved(pid_t child) {
  std::ifstream file("/proc/" + std::to_string(child) + "/schedstat");
  std::int64_t ran = 0;
  std::int64_t waited = 0;
  return std::chrono::nanoseconds(file >> ran >> waited ? waited : 0);
}

// Reads both pipes until they are closed; signals and kills by the clock.
inline void follow(pid_t child, int out, int err, const ChildLimits& limits, ChildEnd& end) {
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  bool signalled = limits.signal == 0;
  pollfd pipes[2] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
  while (pipes[0].fd >= 0 || pipes[1].fd >= 0) {
    const auto passed = Clock::now() - began;
    if (!signalled && passed >= limits.signal_after) {
      kill(child, limits.signal);
      signalled = true;
    }
    if (!end.timed_out && passed >= limits.time && passed - starved(child) >= limits.time) {
      kill(-child, SIGKILL);
      end.timed_out = true;
    }
    if (limits.watch) {
      limits.watch(child, end.out);
    }
    poll(pipes, 2, 2);
    for (int i = 0; i < 2; ++i) {
      if (pipes[i].fd >= 0 && pipes[i].revents != 0) {
        char bytes[4096];
        const ssize_t count = read(pipes[i].fd, bytes, sizeof(bytes));
        if (count > 0) {
          (i == 0 ? end.out : end.err).append(bytes, static_cast<std::size_t>(count));
        } else if (count == 0 || errno != EINTR) {
          pipes[i].fd = -1;
        }
      }
    }
  }
}

}  // namespace detail

// Runs `command` (a path and its arguments) as a child process.  `environment` ("NAME=value") comes before this
// process's own.
inline ChildEnd run_with_faults(std::vector<std::string> command, const FaultPlan& plan, const ChildLimits& limits = {},
                                const std::vector<std::string>& environment = {}) {
  const ScratchDirectory scratch;
  const std::filesystem::path counts = scratch.path() / "counts";
  // Everything is laid out before fork: after it a process with threads must not allocate.
  std::vector<std::string> variables = detail::environment_of(plan, counts, environment);
  const std::vector<char*> arguments = detail::pointers(command);
  const std::vector<char*> settings = detail::pointers(variables);
  int out[2];
  int err[2];
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) {
    throw std::runtime_error("no pipe");
  }
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    execve(arguments[0], arguments.data(), settings.data());
    _exit(127);
  }
  setpgid(child, child);  // whoever of the two comes first
  close(out[1]);
  close(err[1]);
  ChildEnd end;
  detail::follow(child, out[0], err[0], limits, end);
  close(out[0]);
  close(err[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  end.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  std::istringstream lines(read_file(counts));
  std::string kind;
  for (std::int64_t count = 0; lines >> kind >> count;) {
    end.counts[kind] = count;
  }
  return end;
}

}  // namespace caravan::test
