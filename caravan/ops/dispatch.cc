#include "caravan/ops/dispatch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "caravan/base/error.h"
#include "caravan/tensor/cuda_memory.h"

namespace caravan::ops {

void use_device(const Context& ctx) {
  if (const Device& device = ctx.allocator->device(); device.kind == DeviceKind::kCuda) {
    cuda_memory::use(device.index);
  }
}

void report_choice(Context& ctx, const char* op, const char* implementation, std::vector<std::string> refusals) {
  if (ctx.on_choice) {
    ctx.on_choice(Choice{op, implementation, std::move(refusals)});
  }
}

CallTimer::CallTimer(Context& ctx, const char* op)
    : ctx_(ctx), listener_(std::exchange(ctx.on_timed, nullptr)), op_(op) {}

CallTimer::~CallTimer() {
  ctx_.on_timed = std::move(listener_);
}

void CallTimer::ready() {
  ready_ = Clock::now();
}

void CallTimer::done() {
  const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
  listener_({op_, seconds(ready_ - begin_), seconds(Clock::now() - ready_)});
}

void throw_with_op(const Context& ctx, const DeviceError& error, const char* op, const char* implementation,
                   const std::string& arguments) {
  throw DeviceError(
      fmt::format("{} ({}) of {}: {}{}", op, implementation, arguments, error.what(),
                  ctx.synchronous ? "" : "; it may have been an op before it: CARAVAN_SYNC=1 tells which"));
}

void throw_no_implementation(const Context& ctx, const char* op, const std::vector<std::string>& refusals) {
  throw Error(fmt::format(
      "{}: no implementation of backend {} at {} takes this call ({}); this is a bug of Caravan", op,
      to_string(ctx.backend), to_string(ctx.isa),
      refusals.empty() ? std::string("CARAVAN_EXPLAIN=1 tells why") : fmt::format("{}", fmt::join(refusals, "; "))));
}

}  // namespace caravan::ops
