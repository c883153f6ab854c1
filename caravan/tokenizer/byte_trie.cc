#include "caravan/tokenizer/byte_trie.h"

#include <algorithm>
#include <cstddef>
#include <deque>

namespace caravan::tokenizer {

namespace {

// Keys [first, last) of the sorted list share their first `depth` bytes and hang below one node.
struct Pending {
  std::int32_t node = 0;
  std::size_t first = 0;
  std::size_t last = 0;
  std::size_t depth = 0;
};

}  // namespace

ByteTrie::ByteTrie(std::vector<std::pair<std::string_view, std::int32_t>> keys) {
  roots_.fill(-1);
  std::erase_if(keys, [](const auto& key) { return key.first.empty(); });
  std::stable_sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::deque<Pending> pending;
  // Makes a node for every byte that follows the shared ones.
  const auto grow = [&](std::size_t first, std::size_t last, std::size_t depth) {
    for (std::size_t begin = first; begin < last;) {
      const auto byte = static_cast<unsigned char>(keys[begin].first[depth]);
      std::size_t end = begin;
      while (end < last && static_cast<unsigned char>(keys[end].first[depth]) == byte) {
        ++end;
      }
      pending.push_back({static_cast<std::int32_t>(nodes_.size()), begin, end, depth + 1});
      nodes_.emplace_back();
      bytes_.push_back(byte);
      begin = end;
    }
  };
  grow(0, keys.size(), 0);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    roots_[bytes_[i]] = static_cast<std::int32_t>(i);
  }
  while (!pending.empty()) {
    const Pending one = pending.front();
    pending.pop_front();
    std::size_t first = one.first;
    std::int32_t value = -1;
    for (; first < one.last && keys[first].first.size() == one.depth; ++first) {
      value = keys[first].second;
    }
    const auto children = static_cast<std::int32_t>(nodes_.size());
    grow(first, one.last, one.depth);
    nodes_[static_cast<std::size_t>(one.node)] = {value, children, static_cast<std::int32_t>(nodes_.size()) - children};
  }
}

std::int32_t ByteTrie::child(const Node& node, unsigned char byte) const {
  const auto begin = bytes_.begin() + node.children;
  const auto end = begin + node.count;
  const auto found = std::lower_bound(begin, end, byte);
  return found != end && *found == byte ? static_cast<std::int32_t>(found - bytes_.begin()) : -1;
}

}  // namespace caravan::tokenizer
