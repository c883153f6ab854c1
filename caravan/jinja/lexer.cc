#include "caravan/jinja/lexer.h"

#include <fmt/core.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_name_begin(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_name_part(char c) {
  return is_name_begin(c) || is_digit(c);
}

class Lexer {
 public:
  Lexer(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) {
      root();
    }
    push(Token::Kind::kEnd, at_, at_);
    return std::move(tokens_);
  }

 private:
  // Text up to the next tag, and the tag.
  void root() {
    const std::size_t tag = next_tag();
    if (tag == std::string_view::npos) {
      push(Token::Kind::kData, at_, text_.size());
      at_ = text_.size();
      return;
    }
    const char kind = text_[tag + 1];
    std::size_t begin = tag + 2;
    const char sign = begin < text_.size() && (text_[begin] == '-' || text_[begin] == '+') ? text_[begin++] : ' ';
    data(at_, tag, sign, /*block=*/kind != '{');
    at_ = begin;
    line_of(tag);
    if (kind == '#') {
      comment();
    } else if (kind == '%' && raw()) {
      return;
    } else {
      push(kind == '{' ? Token::Kind::kOutputBegin : Token::Kind::kBlockBegin, tag, begin);
      tag_content(kind);
    }
  }

  // The next place where "{{", "{%" or "{#" stands, or npos.
  std::size_t next_tag() const {
    for (std::size_t at = text_.find('{', at_); at != std::string_view::npos; at = text_.find('{', at + 1)) {
      if (at + 1 < text_.size() && std::string_view("{%#").find(text_[at + 1]) != std::string_view::npos) {
        return at;
      }
    }
    return std::string_view::npos;
  }

  // The text from `begin` to `end`, in front of a tag with this sign.
  void data(std::size_t begin, std::size_t end, char sign, bool block) {
    std::string_view text = text_.substr(begin, end - begin);
    if (sign == '-') {
      text = strip(text, Side::kRight);
    } else if (sign != '+' && block) {
      // lstrip_blocks: nothing but white space between the line's beginning and the tag goes.
      const std::size_t newline = text.rfind('\n');
      const std::size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      const bool begins_line = newline != std::string_view::npos || line_starting_;
      if (begins_line && strip(text.substr(line), Side::kLeft).empty()) {
        text = text.substr(0, line);
      }
    }
    if (!text.empty()) {
      push(Token::Kind::kData, begin, begin + text.size());
    }
  }

  // Behind a tag: `sign` is the one before its end, `trim` whether one newline goes without a sign.
  void behind_tag(char sign, bool trim) {
    const std::size_t end = at_;
    if (sign == '-') {
      at_ = text_.size() - strip(text_.substr(at_), Side::kLeft).size();
    } else if (sign != '+' && trim && at_ < text_.size() && text_[at_] == '\n') {
      ++at_;
    }
    line_starting_ = at_ > end && text_[at_ - 1] == '\n';
  }

  void comment() {
    const std::size_t end = text_.find("#}", at_);
    if (end == std::string_view::npos) {
      fail("a comment does not end");
    }
    const char sign = end > at_ && (text_[end - 1] == '-' || text_[end - 1] == '+') ? text_[end - 1] : ' ';
    at_ = end + 2;
    behind_tag(sign, /*trim=*/true);
  }

  // The word and the end of a tag at `at`, or 0: {% raw %} ends "%}" or "-%}", {% endraw %} also "+%}".
  std::size_t tag_of_word(std::size_t at, std::string_view word, bool plus, char& sign) const {
    const auto skip_space = [&] { at = text_.size() - strip(text_.substr(at), Side::kLeft).size(); };
    skip_space();
    if (text_.substr(at, word.size()) != word) {
      return 0;
    }
    at += word.size();
    skip_space();
    sign = at < text_.size() ? text_[at] : ' ';
    at += sign == '-' || (plus && sign == '+') ? 1 : 0;
    return text_.substr(at, 2) == "%}" ? at + 2 : 0;
  }

  // {% raw %} ... {% endraw %}; false when the tag is another.
  bool raw() {
    char sign = ' ';
    const std::size_t begin = tag_of_word(at_, "raw", /*plus=*/false, sign);
    if (begin == 0) {
      return false;
    }
    at_ = begin;
    behind_tag(sign, /*trim=*/false);
    for (std::size_t tag = at_; (tag = text_.find("{%", tag)) != std::string_view::npos; tag += 2) {
      std::size_t word = tag + 2;
      const char before = word < text_.size() && (text_[word] == '-' || text_[word] == '+') ? text_[word++] : ' ';
      const std::size_t end = tag_of_word(word, "endraw", /*plus=*/true, sign);
      if (end != 0) {
        data(at_, tag, before, /*block=*/true);
        at_ = end;
        behind_tag(sign, /*trim=*/true);
        return true;
      }
    }
    fail("a raw block does not end");
  }

  // What stands in a tag, and its end.
  void tag_content(char kind) {
    const bool output = kind == '{';
    const std::string_view end = output ? "}}" : "%}";
    std::vector<char> open;
    while (true) {
      at_ = text_.size() - strip(text_.substr(at_), Side::kLeft).size();
      if (at_ >= text_.size()) {
        fail(output ? "an output tag {{ does not end" : "a tag {% does not end");
      }
      if (open.empty()) {
        const char c = text_[at_];
        const bool sign = c == '-' || (c == '+' && !output);
        if (text_.substr(at_ + (sign ? 1 : 0), 2) == end) {
          const std::size_t begin = at_;
          at_ += sign ? 3 : 2;
          push(output ? Token::Kind::kOutputEnd : Token::Kind::kBlockEnd, begin, at_);
          behind_tag(sign ? c : ' ', /*trim=*/!output);
          return;
        }
      }
      token(open);
    }
  }

  void token(std::vector<char>& open) {
    const std::size_t begin = at_;
    const char c = text_[at_];
    if (is_digit(c)) {
      number();
    } else if (is_name_begin(c)) {
      while (at_ < text_.size() && is_name_part(text_[at_])) {
        ++at_;
      }
      push(Token::Kind::kName, begin, at_);
    } else if (c == '"' || c == '\'') {
      string(c);
    } else {
      punctuation(c, open);
    }
  }

  // Behind the digits of (\d+_)*\d+ at `at`.
  std::size_t behind_digits(std::size_t at) const {
    while (at < text_.size() &&
           (is_digit(text_[at]) || (text_[at] == '_' && at + 1 < text_.size() && is_digit(text_[at + 1])))) {
      ++at;
    }
    return at;
  }

  void number() {
    const std::size_t begin = at_;
    const auto digit_at = [&](std::size_t at) { return at < text_.size() && is_digit(text_[at]); };
    std::size_t end = behind_digits(begin);
    bool fraction = false;
    if (begin == 0 || text_[begin - 1] != '.') {
      if (end + 1 < text_.size() && text_[end] == '.' && digit_at(end + 1)) {
        fraction = true;
        end = behind_digits(end + 1);
      }
      if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
        const std::size_t sign = end + 1 < text_.size() && (text_[end + 1] == '+' || text_[end + 1] == '-') ? 1 : 0;
        if (digit_at(end + 1 + sign)) {
          fraction = true;
          end = behind_digits(end + 1 + sign);
        }
      }
    }
    if (!fraction && text_[begin] == '0') {
      const bool base = end < text_.size() && std::string_view("bBoOxX").find(text_[end]) != std::string_view::npos;
      if (base || end > begin + 1) {
        fail("a number that begins with 0");
      }
    }
    at_ = end;
    push(fraction ? Token::Kind::kFloat : Token::Kind::kInteger, begin, end);
  }

  void string(char quote) {
    const std::size_t begin = at_;
    for (++at_; at_ < text_.size() && text_[at_] != quote; ++at_) {
      at_ += text_[at_] == '\\' ? 1 : 0;
    }
    if (at_ >= text_.size()) {
      at_ = begin;
      fail("a string does not end");
    }
    push(Token::Kind::kString, begin, ++at_);
  }

  void punctuation(char c, std::vector<char>& open) {
    static constexpr std::string_view kDouble[] = {"//", "**", "==", "!=", ">=", "<="};
    const std::size_t begin = at_;
    const bool two = std::ranges::find(kDouble, text_.substr(at_, 2)) != std::end(kDouble);
    if (!two && std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      fail(fmt::format("unexpected \"{}\"", printable(text_.substr(at_, 1))));
    }
    if (c == '(' || c == '[' || c == '{') {
      open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) {
        fail(open.empty() ? fmt::format("unexpected \"{}\"", c)
                          : fmt::format("unexpected \"{}\", expected \"{}\"", c, open.back()));
      }
      open.pop_back();
    }
    at_ += two ? 2 : 1;
    push(Token::Kind::kOperator, begin, at_);
  }

  void push(Token::Kind kind, std::size_t begin, std::size_t end) {
    tokens_.push_back({kind, line_of(begin), text_.substr(begin, end - begin)});
  }

  // Lines are asked for from the beginning to the end.
  int line_of(std::size_t at) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(counted_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(std::max(at, counted_)), '\n'));
    counted_ = std::max(at, counted_);
    return line_;
  }

  [[noreturn]] void fail(const std::string& what) { fail_syntax(source_, line_of(at_), what); }

  std::string_view text_;
  const std::string& source_;
  std::size_t at_ = 0;
  std::size_t counted_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the last tag took a newline with it, or there was none yet
  std::vector<Token> tokens_;
};

// Reads `digits` hexadecimal ones, or gives -1.
std::int64_t hexadecimal(std::string_view text, std::size_t at, std::size_t digits) {
  if (at + digits > text.size()) {
    return -1;
  }
  std::int64_t value = 0;
  for (const char c : text.substr(at, digits)) {
    const int lower = c | 0x20;
    const int digit = is_digit(c) ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
    if (digit < 0) {
      return -1;
    }
    value = value * 16 + digit;
  }
  return value;
}

// Python's "unicode-escape" of what stands between the quotes.
class Unescape {
 public:
  Unescape(const Token& token, const std::string& source)
      : token_(token), source_(source), text_(token.text.substr(1, token.text.size() - 2)) {}

  std::string run() {
    while (at_ < text_.size()) {
      const std::size_t backslash = std::min(text_.find('\\', at_), text_.size());
      result_.append(text_.substr(at_, backslash - at_));
      at_ = backslash + 1;
      if (backslash < text_.size()) {
        escape();
      }
    }
    return std::move(result_);
  }

 private:
  void escape() {
    static constexpr std::string_view kNames = "\\'\"abfnrtv\n";
    static constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
    const char c = text_[at_];
    if (const std::size_t found = kNames.find(c); found != std::string_view::npos) {
      result_.append(kMeanings.substr(found, 1));  // nothing for a newline
      ++at_;
    } else if (c >= '0' && c <= '7') {
      std::uint32_t value = 0;
      for (int i = 0; i < 3 && at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '7'; ++i) {
        value = value * 8 + static_cast<std::uint32_t>(text_[at_++] - '0');
      }
      append_character(result_, value);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      number(c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else if (c == 'N') {
      fail("a character by its name, \\N");
    } else {
      other();
    }
  }

  void number(std::size_t digits) {
    const std::int64_t value = hexadecimal(text_, at_ + 1, digits);
    if (value < 0 || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      fail(fmt::format("an escape \\{} that names no character", text_[at_]));
    }
    append_character(result_, static_cast<char32_t>(value));
    at_ += 1 + digits;
  }

  // Python keeps the backslash.  What is not ASCII it has written as an escape of its own by then.
  void other() {
    const char32_t character = next_character(text_, at_);
    result_ += '\\';
    if (character < 0x80) {
      append_character(result_, character);
    } else {
      const auto value = static_cast<std::uint32_t>(character);
      result_ += value < 0x100     ? fmt::format("x{:02x}", value)
                 : value < 0x10000 ? fmt::format("u{:04x}", value)
                                   : fmt::format("U{:08x}", value);
    }
  }

  [[noreturn]] void fail(const std::string& what) const { fail_syntax(source_, token_.line, "a string has " + what); }

  const Token& token_;
  const std::string& source_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::string result_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view text, const std::string& source) {
  return Lexer(text, source).run();
}

std::string normalized_lines(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\r') {
      result += text[at];
    } else if (at + 1 == text.size() || text[at + 1] != '\n') {
      result += '\n';
    }
  }
  if (result.ends_with('\n')) {
    result.pop_back();
  }
  return result;
}

std::string unescaped(const Token& token, const std::string& source) {
  return Unescape(token, source).run();
}

void fail_syntax(const std::string& source, int line, const std::string& what) {
  throw FormatError(fmt::format("{}, line {}: not a template: {}", source, line, what));
}

}  // namespace caravan::jinja
