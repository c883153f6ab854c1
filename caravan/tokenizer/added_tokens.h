// Tokens that stand beside the model's vocabulary and are cut out of the text before anything else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace caravan::tokenizer {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;  // not where a letter or digit touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = false;   // looked for in the normalised text, by its normalised content
  bool special = false;      // ordinary text under EncodeOptions::plain; left out by skip_special
};

// A stretch of text that is one added token, or ordinary text (id -1).
struct AddedStretch {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::int32_t id = -1;
};

// Finds any of a set of tokens: at the leftmost place, the longest, none overlapping another (daachorse's
// LeftmostLongest, which `tokenizers` uses).
class AddedTokenFinder {
 public:
  // `key` is what is looked for.  False when another token has the same.
  bool add(std::string_view key, const AddedToken& token);
  bool empty() const { return tokens_.empty(); }

  // The whole text in order; `plain` passes special tokens over.
  std::vector<AddedStretch> split(std::string_view text, bool plain) const;

 private:
  // The next place from `at` on where a token may begin.
  std::size_t next_start(std::string_view text, std::size_t at) const;
  // The longest token at `at`: its number and length, or length 0.
  std::pair<std::size_t, std::size_t> match_at(std::string_view text, std::size_t at) const;

  std::vector<AddedToken> tokens_;
  std::vector<std::int32_t> token_of_node_ = {-1};             // of the tree of keys; node 0 is its root
  std::unordered_map<std::uint64_t, std::uint32_t> children_;  // node * 256 + byte
  std::string starts_;                                         // first bytes of keys, each once
  bool is_start_[256] = {};
  bool is_second_[256] = {};  // second bytes of keys; every byte, when a key has one byte alone
};

}  // namespace caravan::tokenizer
