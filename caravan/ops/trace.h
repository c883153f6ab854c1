// What ran when, in the JSON that ui.perfetto.dev and chrome://tracing open.
//
//   ctx.trace = std::make_shared<Trace>("step.json", ctx);
//   {
//     const TraceRange range(ctx, "forward");
//     ...                      // ops add ranges of their own
//   }
//   ctx.trace->finish();
//
// A track a host thread; of a GPU a second one, with when its stream began and ended what the range asked for: events are
// recorded on the stream and read later, so that but once in some thousand ranges nothing waits for the trace.  The ops of
// a CUDA graph are one range, the graph's.
//
// On a GPU ranges are NVTX ranges too, with a trace and without: Nsight Systems shows them.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "caravan/ops/context.h"

namespace caravan::ops {

// The clock of a device that works behind the host's back.  An implementation detail of ops/cuda.
class DeviceClock {
 public:
  virtual ~DeviceClock() = default;
  // Marks the place that the device's work has reached.  False where none can be marked, as while a graph is recorded.
  virtual bool mark() = 0;
  // Whether read() may be called now: not while the calling thread records a graph, which may wait for nothing.
  virtual bool can_read() const = 0;
  // Waits for the device and appends when it passed each mark since the last read().
  virtual void read(std::vector<std::chrono::steady_clock::time_point>& times) = 0;
};

class Trace {
 public:
  using Clock = std::chrono::steady_clock;

  // Creates the file, or writes over an older trace.  `ctx` says which device is to be timed.  Throws FileError when it
  // cannot, and when the file is there and holds something else.
  Trace(const std::filesystem::path& file, Context& ctx);
  // Finishes, and says nothing when that fails.
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  // While paused, ranges that begin leave nothing.  A trace begins unpaused.
  void pause(bool paused) { paused_ = paused; }
  bool is_recording() const { return !paused_ && !finished_; }

  // Writes what is there and closes the file; later ranges leave nothing.  Throws FileError when the file is not whole.
  void finish();

 private:
  friend class TraceRange;
  struct Event {
    std::string name, detail;
    Clock::time_point begin, end;
    int thread = 0;
    std::int64_t begin_mark = -1;  // of the device
    std::int64_t end_mark = -1;
  };

  void add(Event event);
  std::int64_t mark();  // its place in marks_, or -1
  int thread_number();
  void flush();
  void write(const Event& event, const char* category, int process, Clock::time_point begin, Clock::time_point end);

  std::mutex mutex_;
  std::filesystem::path path_;
  std::ofstream file_;
  Clock::time_point origin_ = Clock::now();
  std::unique_ptr<DeviceClock> device_;
  std::vector<Clock::time_point> marks_;  // those that were read
  std::int64_t marked_ = 0;
  std::vector<Event> events_;
  std::unordered_map<std::thread::id, int> threads_;
  std::atomic<bool> paused_ = false;
  std::atomic<bool> finished_ = false;
};

// A stretch of the host's work, from the object's beginning to its end; inside another one it is shown below it.
class TraceRange {
 public:
  // `name` lives as long as the program does.
  TraceRange(Context& ctx, const char* name) : TraceRange(ctx, name, [] { return std::string(); }) {}
  // `detail` is asked for only where somebody will read it.
  template <typename Detail>
  TraceRange(Context& ctx, const char* name, const Detail& detail)
      : nvtx_(ctx.backend == Backend::kCuda && !ctx.dry_run()),
        trace_(ctx.trace != nullptr && ctx.trace->is_recording() && !ctx.dry_run() ? ctx.trace.get() : nullptr) {
    if (nvtx_ || trace_ != nullptr) {
      begin(name, trace_ != nullptr ? detail() : std::string());
    }
  }
  ~TraceRange() {
    if (nvtx_ || trace_ != nullptr) {
      end();
    }
  }
  TraceRange(const TraceRange&) = delete;
  TraceRange& operator=(const TraceRange&) = delete;

 private:
  void begin(const char* name, std::string detail);
  void end();

  bool nvtx_;
  Trace* trace_;
  Trace::Event event_;
};

}  // namespace caravan::ops
