#include "caravan/tokenizer/added_tokens.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "caravan/tokenizer/unicode.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

bool word_before(std::string_view text, std::size_t at) {
  return at > 0 && is_word_character(code_point_before(text, at).value);
}

bool word_behind(std::string_view text, std::size_t at) {
  return at < text.size() && is_word_character(code_point_at(text, at).value);
}

// Where the white space that ends at `at` begins, not before `limit`.
std::size_t spaces_begin(std::string_view text, std::size_t at, std::size_t limit) {
  while (at > limit) {
    const CodePoint character = code_point_before(text, at);
    if (!is_space(kind_of(character.value))) {
      break;
    }
    at -= character.length;
  }
  return std::max(at, limit);
}

std::size_t spaces_end(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const CodePoint character = code_point_at(text, at);
    if (!is_space(kind_of(character.value))) {
      break;
    }
    at += character.length;
  }
  return at;
}

}  // namespace

bool AddedTokenFinder::add(std::string_view key, const AddedToken& token) {
  std::uint32_t node = 0;
  for (const char letter : key) {
    const auto next = static_cast<std::uint32_t>(token_of_node_.size());
    const auto [place, is_new] =
        children_.try_emplace(std::uint64_t{node} * 256 + static_cast<unsigned char>(letter), next);
    if (is_new) {
      token_of_node_.push_back(-1);
    }
    node = place->second;
  }
  if (token_of_node_[node] >= 0) {
    return false;
  }
  token_of_node_[node] = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(token);
  if (!std::exchange(is_start_[static_cast<unsigned char>(key[0])], true)) {
    starts_ += key[0];
  }
  if (key.size() > 1) {
    is_second_[static_cast<unsigned char>(key[1])] = true;
  } else {
    std::fill(std::begin(is_second_), std::end(is_second_), true);
  }
  return true;
}

std::pair<std::size_t, std::size_t> AddedTokenFinder::match_at(std::string_view text, std::size_t at) const {
  std::pair<std::size_t, std::size_t> best{0, 0};
  std::uint32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto child = children_.find(std::uint64_t{node} * 256 + static_cast<unsigned char>(text[i]));
    if (child == children_.end()) {
      break;
    }
    node = child->second;
    if (token_of_node_[node] >= 0) {
      best = {static_cast<std::size_t>(token_of_node_[node]), i + 1 - at};
    }
  }
  return best;
}

std::size_t AddedTokenFinder::next_start(std::string_view text, std::size_t at) const {
  while (at < text.size()) {
    // Nearly always one byte begins them all, "<".
    at = starts_.size() == 1 ? std::min(text.find(starts_[0], at), text.size()) : at;
    if (at + 1 >= text.size() ||
        (is_start_[static_cast<unsigned char>(text[at])] && is_second_[static_cast<unsigned char>(text[at + 1])])) {
      break;
    }
    ++at;
  }
  return at;
}

std::vector<AddedStretch> AddedTokenFinder::split(std::string_view text, bool plain) const {
  std::vector<AddedStretch> stretches;
  std::size_t covered = 0;
  for (std::size_t at = 0; !tokens_.empty() && (at = next_start(text, at)) < text.size();) {
    const auto [number, length] = match_at(text, at);
    if (length == 0) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at + length;
    at = end;  // also when the match is dropped: matches do not overlap
    const AddedToken& token = tokens_[number];
    if ((plain && token.special) || (token.single_word && (word_before(text, begin) || word_behind(text, end)))) {
      continue;
    }
    if (token.lstrip) {
      begin = spaces_begin(text, begin, covered);
    }
    if (token.rstrip) {
      end = spaces_end(text, end);
    }
    if (covered < begin) {
      stretches.push_back({covered, begin, -1});
    }
    stretches.push_back({begin, end, token.id});
    covered = end;
  }
  if (covered < text.size()) {
    stretches.push_back({covered, text.size(), -1});
  }
  return stretches;
}

}  // namespace caravan::tokenizer
