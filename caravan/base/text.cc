#include "caravan/base/text.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

namespace caravan {

std::string grouped(std::int64_t number) {
  const std::string plain = std::to_string(number);
  const std::size_t first_digit = number < 0 ? 1 : 0;
  std::string text;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    if (i > first_digit && (plain.size() - i) % 3 == 0) {
      text += ',';
    }
    text += plain[i];
  }
  return text;
}

std::string printable(std::string_view text, std::size_t max_bytes) {
  std::string result;
  for (const char c : text.substr(0, max_bytes)) {
    result += (c >= 0x20 && c < 0x7f) ? c : '?';
  }
  if (text.size() > max_bytes) {
    result += "...";
  }
  return result;
}

std::optional<std::string> nearest_word(const std::string& word, std::span<const std::string> words) {
  std::optional<std::string> best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& other : words) {
    // Rows of the edit table, two behind for swaps of neighbours.
    std::vector<std::size_t> before(other.size() + 1), above(other.size() + 1), row(other.size() + 1);
    std::iota(above.begin(), above.end(), std::size_t{0});
    for (std::size_t i = 1; i <= word.size(); ++i) {
      row[0] = i;
      for (std::size_t j = 1; j <= other.size(); ++j) {
        const std::size_t replaced = above[j - 1] + (word[i - 1] == other[j - 1] ? 0 : 1);
        row[j] = std::min({above[j] + 1, row[j - 1] + 1, replaced});
        if (i > 1 && j > 1 && word[i - 1] == other[j - 2] && word[i - 2] == other[j - 1]) {
          row[j] = std::min(row[j], before[j - 2] + 1);
        }
      }
      before = above;
      above = row;
    }
    if (above.back() < best_distance) {
      best_distance = above.back();
      best = other;
    }
  }
  return best;
}

std::string shell_word(std::string_view text) {
  constexpr const char* kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string_view::npos) {
    return std::string(text);
  }
  std::string word = "'";
  for (const char c : text) {
    word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return word + "'";
}

}  // namespace caravan
