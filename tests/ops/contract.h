// What the tests of contracts share: expecting a sentence, and comparing a dry run with a real one.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>

#include "caravan/base/error.h"
#include "tests/ops/inputs.h"

namespace caravan::ops::testing {

inline constexpr std::int64_t kCapacity = std::int64_t{64} << 20;

inline Context small_context() {
  return make_context({.threads = 1, .memory_capacity = kCapacity});
}

// The sentence of the E that `call` throws, or what happened instead.
template <typename E>
std::string thrown(const std::function<void()>& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another exception: ") + error.what();
  }
  return "nothing was thrown";
}

#define EXPECT_SHAPE_ERROR(call, op, argument, found)                                       \
  do {                                                                                      \
    const std::string sentence = thrown<ShapeError>([&] { call; });                         \
    EXPECT_TRUE(sentence.starts_with(op ": argument " argument ": expected ")) << sentence; \
    EXPECT_NE(sentence.find(found), std::string::npos) << sentence;                         \
  } while (false)

inline Tensor floats(Context& ctx, const Shape& shape, DType dtype = DType::kF32) {
  return ctx.allocate(dtype, shape);
}

// The same calls on the host and on the meta device: what the allocators say must be one.  The meta device's addresses
// belong to nobody, so a byte touched there would end the test.
template <typename Run>
void expect_dry_run_predicts(Backend backend, const Run& run_ops) {
  Context host = make_context({.backend = backend, .threads = 2, .memory_capacity = kCapacity});
  Context meta = make_context({.backend = backend, .dry_run = true, .threads = 2, .memory_capacity = kCapacity});
  std::map<std::string, int> on_host, on_meta;
  host.on_choice = [&](const Choice& choice) { ++on_host[choice.op + " " + choice.implementation]; };
  meta.on_choice = [&](const Choice& choice) { ++on_meta[choice.op + " " + choice.implementation]; };
  run_ops(host);
  run_ops(meta);
  EXPECT_EQ(on_host, on_meta);
  EXPECT_EQ(format_table(host.allocator->use()), format_table(meta.allocator->use()));
}

// Ones everywhere on the host; the meta device takes the copy and does nothing.
inline Tensor ones(Context& ctx, DType dtype, const Shape& shape) {
  return from_doubles(ctx, dtype, shape, std::vector<double>(static_cast<std::size_t>(shape.elements()), 1));
}

}  // namespace caravan::ops::testing
