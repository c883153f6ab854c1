// How an op chooses among its implementations.  For the .cc files of ops only.
//
// An op's list is ordered; the first implementation that does not refuse the case runs; the reference, which refuses
// nothing that the op's own checks let through, closes the list.  On the meta device the chosen implementation
// prepares what it keeps, its workspace is allocated and given back, and nothing runs: the dry run of every op is these
// few lines, so it cannot drift from the real one.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "caravan/base/error.h"
#include "caravan/ops/context.h"
#include "caravan/ops/describe.h"
#include "caravan/ops/trace.h"

namespace caravan::ops {

template <typename Args>
struct Implementation {
  const char* name;  // "onednn", "simd:avx2", "ref"
  Backend backend;
  Isa min_isa;
  // Why this implementation cannot serve the case, or nullptr when it can.
  const char* (*refuse)(const Context& ctx, const Args& args);
  // Scratch bytes of a call; nullptr means none.  May not touch tensor bytes: the dry run calls it.
  std::int64_t (*workspace)(Context& ctx, const Args& args);
  void (*run)(Context& ctx, const Args& args, std::byte* workspace);
  // Makes what outlives the call, such as the packed form of a weight, before the workspace is taken; nullptr means
  // nothing.  The dry run calls it too: there it allocates and computes nothing.
  void (*prepare)(Context& ctx, const Args& args) = nullptr;
};

// Makes a CUDA context's device the calling thread's; nothing for other contexts.
void use_device(const Context& ctx);

// Tells ctx.on_choice, if anybody listens.
void report_choice(Context& ctx, const char* op, const char* implementation, std::vector<std::string> refusals);

// Times one call for ctx.on_timed, which hears nothing of the calls inside it: their time is this one's.
class CallTimer {
 public:
  // The call begins.  Takes the listener away as long as the object lives.
  CallTimer(Context& ctx, const char* op);
  ~CallTimer();
  CallTimer(const CallTimer&) = delete;
  CallTimer& operator=(const CallTimer&) = delete;

  void ready();  // everything is prepared, the op runs next
  void done();   // tells the listener

 private:
  using Clock = std::chrono::steady_clock;
  Context& ctx_;
  std::function<void(const Timing&)> listener_;
  const char* op_;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point ready_;
};

// A device's error with the op's name and arguments before its words.
[[noreturn]] void throw_with_op(const Context& ctx, const DeviceError& error, const char* op,
                                const char* implementation, const std::string& arguments);

// Throws when no implementation is left: a bug of the list.
[[noreturn]] void throw_no_implementation(const Context& ctx, const char* op, const std::vector<std::string>& refusals);

template <typename Args>
void dispatch(Context& ctx, const char* op, std::span<const Implementation<Args>> list, const Args& args) {
  use_device(ctx);
  std::vector<std::string> refusals;
  const bool explain = static_cast<bool>(ctx.on_choice);
  for (const Implementation<Args>& one : list) {
    const char* reason = nullptr;
    if (one.backend != ctx.backend && (one.backend != Backend::kRef || ctx.backend == Backend::kCuda)) {
      reason = "another backend was asked for";
    } else if (one.min_isa > ctx.isa) {
      reason = "the processor or CARAVAN_MAX_ISA is below its level";
    } else if (one.refuse != nullptr) {
      reason = one.refuse(ctx, args);
    }
    if (reason != nullptr) {
      if (explain) {
        refusals.push_back(std::string(one.name) + ": " + reason);
      }
      continue;
    }
    if (explain) {
      report_choice(ctx, op, one.name, std::move(refusals));
    }
    std::optional<CallTimer> timer;
    if (ctx.on_timed && !ctx.dry_run()) {
      timer.emplace(ctx, op);
    }
    if (one.prepare != nullptr) {
      one.prepare(ctx, args);
    }
    Tensor workspace;
    const std::int64_t bytes = one.workspace == nullptr ? 0 : one.workspace(ctx, args);
    if (bytes > 0) {
      workspace = ctx.allocate(DType::kU8, {bytes}, Segment::kWorkspace);
    }
    if (!ctx.dry_run()) {
      if (timer) {
        synchronize(ctx);
        timer->ready();
      }
      try {
        const TraceRange range(ctx, op, [&] { return describe(args) + " by " + one.name; });
        one.run(ctx, args, workspace.defined() ? workspace.address() : nullptr);
        if (timer || ctx.synchronous) {
          synchronize(ctx);
        }
      } catch (const DeviceError& error) {
        throw_with_op(ctx, error, op, one.name, describe(args));
      }
      if (timer) {
        timer->done();
      }
    }
    return;
  }
  throw_no_implementation(ctx, op, refusals);
}

}  // namespace caravan::ops
