#include "caravan/train/toml_ascii.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "caravan/base/error.h"
#include "caravan/base/text.h"

namespace caravan::train {

namespace {

constexpr std::size_t kMaxDots = 4096;  // 100,000 nested tables overflow a stack of 8 MiB

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// The code point at `at`, which moves behind it; nothing when the bytes are not UTF-8 (RFC 3629).
std::optional<std::uint32_t> next_code_point(std::string_view text, std::size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t length = lead < 0x80   ? 1
                             : lead < 0xc2 ? 0
                             : lead < 0xe0 ? 2
                             : lead < 0xf0 ? 3
                             : lead < 0xf5 ? 4
                                           : 0;
  if (length == 0 || length > text.size() - at) {
    return std::nullopt;
  }
  std::uint32_t point = length == 1 ? lead : lead & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(text[at + i]);
    if ((byte & 0xc0) != 0x80) {
      return std::nullopt;
    }
    point = point << 6 | (byte & 0x3fu);
  }
  const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
  const bool surrogate = point >= 0xd800 && point < 0xe000;
  if (overlong || surrogate || point > 0x10ffff) {
    return std::nullopt;
  }
  at += length;
  return point;
}

// Where the quoted text or comment that begins at `begin` ends; `begin` itself where none does.
std::size_t quoted_end(std::string_view text, std::size_t begin) {
  const char quote = text[begin];
  if (quote == '#') {
    return std::min(text.find('\n', begin), text.size());
  }
  if (quote != '"' && quote != '\'') {
    return begin;
  }
  const std::string three(3, quote);
  const bool long_form = text.substr(begin, 3) == three;
  for (std::size_t at = begin + (long_form ? 3 : 1); at < text.size(); ++at) {
    if (text[at] == '\\' && quote == '"') {
      ++at;
    } else if (!long_form && (text[at] == quote || text[at] == '\n')) {
      return at + 1;
    } else if (long_form && text.substr(at, 3) == three) {
      // One or two more quotes belong to the text.
      return std::min(std::min(text.find_first_not_of(quote, at), text.size()), at + 5);
    }
  }
  return text.size();
}

// A quoted text, in double quotes and with escapes.  Nothing when it is not UTF-8.
std::optional<std::string> escaped(std::string_view quoted) {
  const bool literal = quoted[0] == '\'';
  const std::size_t quotes = quoted.substr(0, 3) == std::string(3, quoted[0]) ? 3 : 1;
  std::string result(quotes, '"');
  // Quotes that end a literal text: in the long form one or two before them belong to it and are escaped.
  const bool closed = quoted.size() >= 2 * quotes && quoted.substr(quoted.size() - quotes) == quoted.substr(0, quotes);
  const std::size_t end = closed ? quoted.size() - quotes : quoted.size();
  for (std::size_t at = quotes; at < end;) {
    const char c = quoted[at];
    if (literal && (c == '\\' || c == '"')) {
      result += '\\';
    } else if (!literal && c == '\\' && at + 1 < end) {
      result += c;
      ++at;
      // No escape begins with a letter beyond ASCII; nor with "!", so the parser refuses it.
      if (static_cast<unsigned char>(quoted[at]) >= 0x80) {
        result += '!';
      }
    }
    const auto point = next_code_point(quoted, at);
    if (!point) {
      return std::nullopt;
    }
    result += *point < 0x80 ? std::string(1, static_cast<char>(*point)) : fmt::format("\\U{:08x}", *point);
  }
  return result + (closed ? std::string(quotes, '"') : "");
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    if (!next_code_point(text, at)) {
      return false;
    }
  }
  return true;
}

std::string ascii_toml(std::string_view text, const std::string& source) {
  std::string result;
  std::size_t line = 1;
  std::size_t line_begin = 0;
  std::size_t dots = 0;
  const auto refuse = [&](const std::string& what, std::size_t at) {
    throw ConfigError(fmt::format("{}: {}; line {}, column {}", source, what, line, at - line_begin + 1));
  };
  for (std::size_t at = text.starts_with("\xef\xbb\xbf") ? 3 : 0; at < text.size();) {
    const std::size_t quoted = quoted_end(text, at);
    const std::string_view piece = text.substr(at, std::max(quoted, at + 1) - at);
    if (is_ascii(piece)) {
      result += piece;
    } else if (piece[0] == '#') {
      result += '#';
    } else if (quoted == at) {
      refuse("not TOML: a letter beyond ASCII outside quotes", at);
    } else if (const auto ascii = escaped(piece)) {
      result += *ascii;
    } else {
      refuse("not TOML: the text that begins here is not UTF-8", at);
    }
    dots += quoted == at && piece[0] == '.' ? 1 : 0;
    if (dots > kMaxDots) {
      refuse(fmt::format("more than {} dots outside quotes, which no configuration needs", grouped(kMaxDots)), at);
    }
    line += static_cast<std::size_t>(std::count(piece.begin(), piece.end(), '\n'));
    const std::size_t newline = piece.rfind('\n');
    line_begin = newline == std::string_view::npos ? line_begin : at + newline + 1;
    at += piece.size();
  }
  return result;
}

}  // namespace caravan::train
