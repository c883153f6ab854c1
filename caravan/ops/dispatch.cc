#include "caravan/ops/dispatch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "caravan/base/error.h"

namespace caravan::ops {

void report_choice(Context& ctx, const char* op, const char* implementation, std::vector<std::string> refusals) {
  if (ctx.on_choice) {
    ctx.on_choice(Choice{op, implementation, std::move(refusals)});
  }
}

void report_timing(const Context& ctx, const char* op, DispatchClock::time_point begin,
                   DispatchClock::time_point ready) {
  const auto seconds = [](DispatchClock::duration time) { return std::chrono::duration<double>(time).count(); };
  ctx.on_timed({op, seconds(ready - begin), seconds(DispatchClock::now() - ready)});
}

void throw_no_implementation(const Context& ctx, const char* op, const std::vector<std::string>& refusals) {
  throw Error(fmt::format(
      "{}: no implementation of backend {} at {} takes this call ({}); this is a bug of Caravan", op,
      to_string(ctx.backend), to_string(ctx.isa),
      refusals.empty() ? std::string("CARAVAN_EXPLAIN=1 tells why") : fmt::format("{}", fmt::join(refusals, "; "))));
}

}  // namespace caravan::ops
