// SentencePiece's table of normalisations: which strings become which, as a double array and a heap of texts.
//
//   uint32, little-endian       bytes of the double array
//   uint32 per unit             the double array of Darts-clone: a state is an index into it
//   texts, each ending in \0    a leaf's value is an offset into them
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace caravan::tokenizer {

class CharsMap {
 public:
  CharsMap() = default;
  // Empty: nothing is changed.  Throws FormatError when the sizes do not fit; `source` opens the message.
  CharsMap(std::string_view blob, const std::string& source);

  bool empty() const { return units_.empty(); }

  // The longest string at `at` that has a text to become, with that text and its own length.  Whatever the array says,
  // it is walked within its bounds.
  std::optional<std::pair<std::string_view, std::size_t>> longest(std::string_view text, std::size_t at) const;

 private:
  std::vector<std::uint32_t> units_;
  std::string texts_;
};

}  // namespace caravan::tokenizer
