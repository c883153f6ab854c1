#include "caravan/base/text.h"

#include <string>

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

}  // namespace caravan
