// Texts that end a generation, found in what comes piece by piece.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace caravan::generate {

// What it hands on is the text before the first stop string and nothing of it: the end of the text so far is held back as
// long as it may be the beginning of one.
class StopStrings {
 public:
  // Throws InputError when one is empty.
  explicit StopStrings(std::vector<std::string> stops);

  // Takes the next piece; returns what may be shown by now.
  std::string push(std::string_view piece);
  // What is still held back when the text is over.
  std::string finish();
  // Whether a stop string came; nothing is handed on any more.
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace caravan::generate
