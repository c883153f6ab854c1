#include "caravan/ops/context.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string_view>

#include "caravan/base/error.h"
#include "caravan/base/threads.h"
#include "caravan/ops/args.h"

namespace caravan::ops {
namespace {

// Prints each distinct choice once.  Copies of a context may live in several threads and share the set, hence the lock.
class ChoicePrinter {
 public:
  void operator()(const Choice& choice) const {
    std::string line = fmt::format("caravan: {}: {}", choice.op, choice.implementation);
    if (!choice.refusals.empty()) {
      line += fmt::format(" (not {})", fmt::join(choice.refusals, "; not "));
    }
    const std::lock_guard lock(seen_->mutex);
    if (seen_->lines.insert(line).second) {
      std::fprintf(stderr, "%s\n", line.c_str());
    }
  }

 private:
  struct Seen {
    std::mutex mutex;
    std::set<std::string> lines;
  };
  std::shared_ptr<Seen> seen_ = std::make_shared<Seen>();
};

bool wanted(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && std::string_view(value) == "1";
}

}  // namespace

const char* to_string(Backend backend) {
  switch (backend) {
    case Backend::kCpu:
      return "cpu";
    case Backend::kRef:
      return "ref";
    case Backend::kCuda:
      return "cuda";
  }
  return "unknown";
}

Context make_context(const ContextOptions& options) {
  if (options.threads < 0) {
    throw InputError(fmt::format("{} threads were asked for; give 1 or more, or 0 for every core", options.threads));
  }
  Context ctx;
  ctx.backend = options.backend;
  ctx.deterministic = options.deterministic;
  // First, because it asks for AMX tiles and the permission covers only threads that start later.
  ctx.isa = usable_isa();
  ctx.threads = options.threads == 0 ? usable_cores() : options.threads;
  if (options.backend == Backend::kCuda) {
    cuda::require_built();
    ctx.synchronous = wanted("CARAVAN_SYNC");
    ctx.tune_products = wanted("CARAVAN_TUNE");
    const char* graphs = std::getenv("CARAVAN_GRAPHS");
    ctx.record_graphs = !ctx.synchronous && (graphs == nullptr || std::string_view(graphs) != "0");
  }
  ctx.allocator = options.dry_run                     ? Allocator::meta(options.memory_capacity, options.cuda_device)
                  : options.backend == Backend::kCuda ? Allocator::cuda(options.cuda_device, options.memory_capacity)
                                                      : Allocator::host(options.memory_capacity);
  if (wanted("CARAVAN_EXPLAIN")) {
    ctx.on_choice = ChoicePrinter();
  }
  return ctx;
}

std::int64_t plans_made(const Context& ctx) {
  return (ctx.plans == nullptr ? 0 : cpu::plans_made(*ctx.plans)) +
         (ctx.cuda == nullptr ? 0 : cuda::plans_made(*ctx.cuda));
}

void synchronize(Context& ctx) {
  if (ctx.allocator->device().kind == DeviceKind::kCuda) {
    cuda::synchronize(ctx);
  }
}

}  // namespace caravan::ops
