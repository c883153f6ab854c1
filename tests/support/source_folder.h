// Where fixtures lie: in the sources that a test was built from, or, for tests that were carried elsewhere, in the folder that
// CARAVAN_TEST_SOURCE names.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace caravan::test {

inline std::filesystem::path source_folder() {
  const char* carried = std::getenv("CARAVAN_TEST_SOURCE");
  return carried != nullptr ? carried : CARAVAN_SOURCE_DIR;
}

}  // namespace caravan::test
