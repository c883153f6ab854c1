#include <algorithm>

#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

bool is_line_end(char32_t c) {
  return (c >= '\n' && c <= '\r') || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

// The byte where the last word of `text` begins; text must not end in white space.
std::size_t begin_of_last_word(std::string_view text) {
  std::size_t begin = text.size();
  while (begin > 0) {
    std::size_t before = begin - 1;
    while (before > 0 && (static_cast<unsigned char>(text[before]) & 0xC0) == 0x80) {
      --before;
    }
    std::size_t at = before;
    if (is_space(next_character(text, at))) {
      break;
    }
    begin = before;
  }
  return begin;
}

std::size_t end_of_first_word(std::string_view text) {
  std::size_t end = 0;
  std::size_t behind = 0;
  while (end < text.size() && !is_space(next_character(text, behind))) {
    end = behind;
  }
  return end;
}

void split_at_space(std::string_view text, std::int64_t limit, const Sink& sink) {
  text = strip(text, Side::kLeft);
  for (std::int64_t count = 0; !text.empty(); ++count) {
    if (limit >= 0 && count == limit) {
      sink(text);  // its white space at the end stays
      return;
    }
    const std::size_t end = end_of_first_word(text);
    sink(text.substr(0, end));
    text = strip(text.substr(end), Side::kLeft);
  }
}

void split_at_space_from_right(std::string_view text, std::int64_t limit, const Sink& sink) {
  text = strip(text, Side::kRight);
  for (std::int64_t count = 0; !text.empty(); ++count) {
    if (limit >= 0 && count == limit) {
      sink(text);
      return;
    }
    const std::size_t begin = begin_of_last_word(text);
    sink(text.substr(begin));
    text = strip(text.substr(0, begin), Side::kRight);
  }
}

}  // namespace

void split(std::string_view text, std::optional<std::string_view> separator, std::int64_t limit, const Sink& sink) {
  if (!separator) {
    split_at_space(text, limit, sink);
    return;
  }
  std::size_t begin = 0;
  for (std::int64_t count = 0; limit < 0 || count < limit; ++count) {
    const std::size_t found = find(text, *separator, begin);
    if (found == std::string_view::npos) {
      break;
    }
    sink(text.substr(begin, found - begin));
    begin = found + separator->size();
  }
  sink(text.substr(begin));
}

void split_from_right(std::string_view text, std::optional<std::string_view> separator, std::int64_t limit,
                      const Sink& sink) {
  if (!separator) {
    split_at_space_from_right(text, limit, sink);
    return;
  }
  const std::string backwards(text.rbegin(), text.rend());
  const std::string wanted(separator->rbegin(), separator->rend());
  split(backwards, wanted, limit, [&](std::string_view piece) { sink(std::string(piece.rbegin(), piece.rend())); });
}

void split_lines(std::string_view text, bool keep_ends, const Sink& sink) {
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = at;
    const char32_t character = next_character(text, at);
    if (!is_line_end(character)) {
      continue;
    }
    if (character == '\r' && at < text.size() && text[at] == '\n') {
      ++at;
    }
    sink(text.substr(begin, (keep_ends ? at : end) - begin));
    begin = at;
  }
  if (begin < text.size()) {
    sink(text.substr(begin));
  }
}

}  // namespace caravan::jinja
