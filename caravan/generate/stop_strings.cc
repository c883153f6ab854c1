#include "caravan/generate/stop_strings.h"

#include <algorithm>
#include <utility>

#include "caravan/base/error.h"

namespace caravan::generate {

namespace {

// The length of the longest end of `text` that `stop` begins with.
std::size_t begun(std::string_view text, std::string_view stop) {
  std::size_t length = std::min(text.size(), stop.size());
  while (!text.ends_with(stop.substr(0, length))) {
    --length;
  }
  return length;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  if (std::ranges::find(stops_, "") != stops_.end()) {
    throw InputError("a stop string is empty, which would end every text before it begins; give some text");
  }
}

std::string StopStrings::push(std::string_view piece) {
  if (stopped_) {
    return "";
  }
  held_ += piece;
  std::size_t first = std::string::npos;
  std::size_t keep = 0;
  for (const std::string& stop : stops_) {
    first = std::min(first, held_.find(stop));
    keep = std::max(keep, begun(held_, stop));
  }
  stopped_ = first != std::string::npos;
  const std::string shown = held_.substr(0, stopped_ ? first : held_.size() - keep);
  held_ = stopped_ ? "" : held_.substr(shown.size());
  return shown;
}

std::string StopStrings::finish() {
  return std::exchange(held_, "");
}

}  // namespace caravan::generate
