// How often each piece of text occurs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::tokenizer {

class WordCounts {
 public:
  void add(std::string_view word, std::int64_t count);
  void add(const WordCounts& other);
  std::size_t size() const { return words_.size(); }
  std::string_view word(std::size_t i) const {
    return std::string_view(arena_).substr(words_[i].offset, words_[i].length);
  }
  std::int64_t count(std::size_t i) const { return words_[i].count; }

 private:
  struct Word {
    std::uint64_t hash = 0;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::int64_t count = 0;
  };
  void grow();

  std::string arena_;
  std::vector<Word> words_;
  std::vector<std::uint32_t> slots_;  // number of a word, plus one; 0: free
};

// Counts the pieces of a text that a scanner finds: piece_end(text, at) is the end of the piece at `at`.  On several
// threads the text is cut where the scanner would cut it too; the counts are the same.
using PieceEnd = std::size_t (*)(std::string_view text, std::size_t at);
void count_pieces(std::string_view text, PieceEnd piece_end, int threads, WordCounts& counts);

}  // namespace caravan::tokenizer
