#include "caravan/ops/trace.h"

#include <fmt/format.h>

#include <exception>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/ops/args.h"

namespace caravan::ops {

namespace {

constexpr std::size_t kMostPending = 8192;  // events; a device's marks are read then
constexpr int kHostProcess = 1;
constexpr int kDeviceProcess = 2;
// What every trace of ours begins with.
constexpr std::string_view kBegin =
    "[\n"
    R"({"name":"process_name","ph":"M","pid":1,"tid":0,"args":{"name":"caravan"}})";

void refuse_foreign(const std::filesystem::path& file) {
  std::ifstream there(file, std::ios::binary);
  if (!there) {
    return;
  }
  std::string begin(kBegin.size(), '\0');
  there.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  begin.resize(static_cast<std::size_t>(there.gcount()));
  if (!begin.empty() && begin != kBegin) {
    throw FileError(fmt::format("{}: is there and is no trace; choose another name", file.string()));
  }
}

}  // namespace

Trace::Trace(const std::filesystem::path& file, Context& ctx) : path_(file) {
  refuse_foreign(file);
  file_.open(file, std::ios::binary | std::ios::trunc);
  file_ << kBegin;
  file_.flush();
  if (!file_) {
    throw FileError(fmt::format("{}: the trace cannot be written there", file.string()));
  }
  if (ctx.backend == Backend::kCuda && !ctx.dry_run()) {
    device_ = cuda::make_clock(ctx);
  }
  if (device_ != nullptr) {
    file_ << fmt::format(
        ",\n"
        R"({{"name":"process_name","ph":"M","pid":{},"tid":0,"args":{{"name":"GPU stream"}}}})",
        kDeviceProcess);
  }
}

Trace::~Trace() {
  try {
    finish();
  } catch (const std::exception&) {
    // Whoever wants to know calls finish() himself.
  }
}

void Trace::finish() {
  const std::lock_guard lock(mutex_);
  if (finished_) {
    return;
  }
  finished_ = true;
  flush();
  file_ << "\n]\n";
  file_.close();
  if (!file_) {
    throw FileError(fmt::format("{}: the trace could not be written to its end; is the disk full?", path_.string()));
  }
}

void Trace::add(Event event) {
  const std::lock_guard lock(mutex_);
  if (finished_) {
    return;
  }
  event.thread = thread_number();
  events_.push_back(std::move(event));
  if (events_.size() >= kMostPending && (device_ == nullptr || device_->can_read())) {
    flush();
  }
}

std::int64_t Trace::mark() {
  const std::lock_guard lock(mutex_);
  return device_ != nullptr && !finished_ && device_->mark() ? marked_++ : -1;
}

int Trace::thread_number() {
  return threads_.try_emplace(std::this_thread::get_id(), static_cast<int>(threads_.size()) + 1).first->second;
}

void Trace::flush() {
  if (device_ != nullptr) {
    try {
      device_->read(marks_);
    } catch (...) {
      // A device that failed tells no more times, and nobody is to ask for those that it has not told.
      device_ = nullptr;
      events_.clear();
      throw;
    }
  }
  for (const Event& event : events_) {
    write(event, "host", kHostProcess, event.begin, event.end);
    if (event.begin_mark >= 0 && event.end_mark >= 0) {
      write(event, "gpu", kDeviceProcess, marks_.at(static_cast<std::size_t>(event.begin_mark)),
            marks_.at(static_cast<std::size_t>(event.end_mark)));
    }
  }
  events_.clear();
}

void Trace::write(const Event& event, const char* category, int process, Clock::time_point begin,
                  Clock::time_point end) {
  const auto microseconds = [](Clock::duration time) {
    return std::chrono::duration<double, std::micro>(time).count();
  };
  file_ << ",\n"
        << fmt::format(R"({{"name":{},"cat":"{}","ph":"X","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f})",
                       nlohmann::json(event.name).dump(), category, process, event.thread,
                       microseconds(begin - origin_), microseconds(end - begin));
  if (!event.detail.empty()) {
    file_ << fmt::format(R"(,"args":{{"of":{}}})", nlohmann::json(event.detail).dump());
  }
  file_ << "}";
}

void TraceRange::begin(const char* name, std::string detail) {
  if (nvtx_) {
    cuda::push_range(name);
  }
  if (trace_ != nullptr) {
    event_.name = name;
    event_.detail = std::move(detail);
    event_.begin_mark = trace_->mark();
    event_.begin = Trace::Clock::now();
  }
}

void TraceRange::end() {
  if (nvtx_) {
    cuda::pop_range();
  }
  if (trace_ != nullptr) {
    try {
      event_.end = Trace::Clock::now();
      event_.end_mark = trace_->mark();
      trace_->add(std::move(event_));
    } catch (const std::exception&) {
      trace_->pause(true);  // a range may end while an error is on its way
    }
  }
}

}  // namespace caravan::ops
