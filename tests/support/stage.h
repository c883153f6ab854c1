// An output to read back and a clock to turn by hand: for what is drawn over time.
#pragma once

#include <functional>
#include <sstream>
#include <string>

namespace caravan::test {

struct Stage {
  std::ostringstream out;
  double now = 100.0;
  std::function<double()> clock() {
    return [this] { return now; };
  }
  // What was written since the last call.
  std::string taken() {
    std::string text = out.str();
    out.str("");
    return text;
  }
};

}  // namespace caravan::test
