// Which of a set of byte strings begin at a place in a text, found by walking a tree once from there.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace caravan::tokenizer {

class ByteTrie {
 public:
  ByteTrie() = default;
  // Keys with values from 0 on; of a key that comes twice the last value counts.  Empty keys are left out.
  explicit ByteTrie(std::vector<std::pair<std::string_view, std::int32_t>> keys);

  bool empty() const { return nodes_.empty(); }

  // Calls found(value, length) for every key that begins at `at`, the shortest first.
  template <typename Found>
  void prefixes(std::string_view text, std::size_t at, Found found) const {
    if (at >= text.size() || nodes_.empty()) {
      return;
    }
    std::int32_t node = roots_[static_cast<unsigned char>(text[at])];
    for (std::size_t i = at + 1; node >= 0; ++i) {
      const Node& here = nodes_[static_cast<std::size_t>(node)];
      if (here.value >= 0) {
        found(here.value, i - at);
      }
      if (i == text.size()) {
        return;
      }
      node = child(here, static_cast<unsigned char>(text[i]));
    }
  }

  // The longest key that begins at `at`: its value and length, or -1 and 0.
  std::pair<std::int32_t, std::size_t> longest(std::string_view text, std::size_t at) const {
    std::pair<std::int32_t, std::size_t> best{-1, 0};
    prefixes(text, at, [&](std::int32_t value, std::size_t length) { best = {value, length}; });
    return best;
  }

 private:
  struct Node {
    std::int32_t value = -1;
    std::int32_t children = 0;  // the first of them; they stand together, in the order of their bytes
    std::int32_t count = 0;
  };
  std::int32_t child(const Node& node, unsigned char byte) const;

  std::array<std::int32_t, 256> roots_{};  // node of each first byte, -1: no key begins so
  std::vector<Node> nodes_;
  std::vector<unsigned char> bytes_;  // of each node, the byte that leads to it
};

}  // namespace caravan::tokenizer
