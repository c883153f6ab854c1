// For tests that run once a level of instructions (caravan_isa_test in tests/CMakeLists.txt).
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

#include "caravan/base/isa.h"

namespace caravan::test {

// The level that CARAVAN_MAX_ISA asks for and this processor lacks, or nullptr.
inline const char* missing_isa() {
  const char* wanted = std::getenv("CARAVAN_MAX_ISA");
  const bool missing = wanted != nullptr && parse_isa(wanted).value_or(Isa::kBaseline) > detect_isa();
  return missing ? wanted : nullptr;
}

}  // namespace caravan::test

// A macro because GTEST_SKIP returns from the function it stands in.
#define CARAVAN_SKIP_WITHOUT_ISA()                          \
  if (const char* level = ::caravan::test::missing_isa()) { \
    GTEST_SKIP() << "the processor has no " << level;       \
  }                                                         \
  static_assert(true, "")
