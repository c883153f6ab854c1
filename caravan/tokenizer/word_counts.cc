#include "caravan/tokenizer/word_counts.h"

#include <xxhash.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "caravan/base/threads.h"

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kMaxWords = std::size_t{1} << 31;
constexpr std::size_t kMinChunkBytes = std::size_t{1} << 20;

bool ascii_letter(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

// The next place, from `at`, where both scanners begin a piece whatever stands before: an ASCII letter behind a line's
// end.
std::size_t next_boundary(std::string_view text, std::size_t at) {
  for (at = text.find('\n', at); at != std::string_view::npos; at = text.find('\n', at + 1)) {
    if (at + 1 < text.size() && ascii_letter(text[at + 1])) {
      return at + 1;
    }
  }
  return text.size();
}

}  // namespace

void WordCounts::add(std::string_view word, std::int64_t count) {
  if (words_.size() * 2 >= slots_.size()) {
    grow();
  }
  const std::uint64_t hash = XXH3_64bits(word.data(), word.size());
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = hash & mask;
  for (; slots_[i] != 0; i = (i + 1) & mask) {
    Word& known = words_[slots_[i] - 1];
    if (known.hash == hash && std::string_view(arena_).substr(known.offset, known.length) == word) {
      known.count += count;
      return;
    }
  }
  if (words_.size() >= kMaxWords) {
    throw InputError("the text has too many different words to learn from; give less of it");
  }
  words_.push_back({hash, arena_.size(), word.size(), count});
  arena_.append(word);
  slots_[i] = static_cast<std::uint32_t>(words_.size());
}

void WordCounts::add(const WordCounts& other) {
  for (std::size_t i = 0; i < other.size(); ++i) {
    add(other.word(i), other.count(i));
  }
}

void WordCounts::grow() {
  slots_.assign(std::max<std::size_t>(256, slots_.size() * 2), 0);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t word = 0; word < words_.size(); ++word) {
    std::size_t i = words_[word].hash & mask;
    while (slots_[i] != 0) {
      i = (i + 1) & mask;
    }
    slots_[i] = static_cast<std::uint32_t>(word + 1);
  }
}

void count_pieces(std::string_view text, PieceEnd piece_end, int threads, WordCounts& counts) {
  const auto most = static_cast<int>(std::min<std::size_t>(text.size() / kMinChunkBytes + 1, 1024));
  const int chunks = std::clamp(threads, 1, most);
  std::vector<std::size_t> begins = {0};
  for (int i = 1; i < chunks; ++i) {
    const std::size_t even = text.size() / static_cast<std::size_t>(chunks) * static_cast<std::size_t>(i);
    begins.push_back(std::max(begins.back(), next_boundary(text, even)));
  }
  begins.push_back(text.size());
  // The whole text is handed to the scanner: what follows a piece decides about its end.
  const auto count_range = [&](std::size_t begin, std::size_t end, WordCounts& into) {
    for (std::size_t at = begin; at < end;) {
      const std::size_t piece = piece_end(text, at);
      into.add(text.substr(at, piece - at), 1);
      at = piece;
    }
  };
  if (chunks == 1) {
    return count_range(0, text.size(), counts);
  }
  std::vector<WordCounts> parts(static_cast<std::size_t>(chunks));
  parallel_for(threads, chunks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      count_range(begins[i], begins[i + 1], parts[i]);
    }
  });
  for (const WordCounts& part : parts) {
    counts.add(part);
  }
}

}  // namespace caravan::tokenizer
