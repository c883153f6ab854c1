#include "caravan/tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/core.h>
#include <pcre2.h>

#include <array>
#include <new>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kMaxPatternBytes = 16384;
constexpr std::uint32_t kMatchLimit = 10'000'000;  // steps of one search
constexpr std::uint32_t kDepthLimit = 100'000;
constexpr std::uint32_t kHeapLimitKiB = 65536;

// Oniguruma's \w, for use inside a class.  Superscripts and fractions of Latin-1 are among it, other ones are not.
constexpr std::string_view kWordInClass =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";

// Reads a pattern once from the left and writes it in PCRE2's words.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& source) : pattern_(pattern), source_(source) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      step();
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw UnsupportedError(fmt::format("{}: the split pattern \"{}\" holds {} at byte {}, which is not supported",
                                       source_, printable(pattern_, 120), what, at_ + 1));
  }

  char peek(std::size_t ahead) const { return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0'; }
  void keep(std::size_t count) {
    result_.append(pattern_.substr(at_, count));
    at_ += count;
  }
  void replace(std::size_t count, std::string_view by) {
    result_.append(by);
    at_ += count;
  }

  void step() {
    const char letter = pattern_[at_];
    if (letter == '\\') {
      escape();
    } else if (in_class_) {
      inside_class(letter);
    } else if (letter == '[') {
      in_class_ = true;
      keep(peek(1) == '^' ? 2 : 1);
      if (peek(0) == ']') {
        refuse("a class that begins with ]");
      }
    } else if (letter == '(' && peek(1) == '?') {
      group();
    } else if (letter == '(' && peek(1) == '*') {
      refuse("(*");
    } else if (letter == '}' && peek(1) == '+') {
      // Oniguruma repeats the interval, PCRE2 makes it possessive.
      refuse("an interval followed by +");
    } else if (letter == '^' || letter == '$') {
      refuse("an anchor of a line");
    } else {
      keep(1);
    }
  }

  void inside_class(char letter) {
    if (letter == ']') {
      in_class_ = false;
    } else if (letter == '[') {
      refuse("a class inside a class");
    } else if (letter == '&' && peek(1) == '&') {
      refuse("an intersection of classes");
    }
    keep(1);
  }

  void group() {
    for (const std::string_view known :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?i)", "(?-i:", "(?-i)"}) {
      if (pattern_.substr(at_).starts_with(known)) {
        keep(known.size());
        return;
      }
    }
    refuse(fmt::format("\"{}\"", printable(pattern_.substr(at_, 4))));
  }

  void escape() {
    const char letter = peek(1);
    switch (letter) {
      case 's':  // White_Space; PCRE2's own \s has U+180E too
        return replace(2, R"(\p{White_Space})");
      case 'S':
        return replace(2, R"(\P{White_Space})");
      case 'w':
        return replace(2, in_class_ ? std::string(kWordInClass) : fmt::format("[{}]", kWordInClass));
      case 'W':
        if (in_class_) {
          refuse("\\W in a class");
        }
        return replace(2, fmt::format("[^{}]", kWordInClass));
      case 'p':
      case 'P':
        return property();
      case 'd':
      case 'D':
      case 't':
      case 'n':
      case 'r':
      case 'f':
      case 'v':
        // \v is one character to Oniguruma and every vertical space to PCRE2.
        return letter == 'v' ? replace(2, R"(\x0b)") : keep(2);
      case 'A':
      case 'z':
        if (in_class_) {
          refuse(fmt::format("\\{} in a class", letter));
        }
        return keep(2);
      case 'x':
        return hexadecimal();
      case 'u':
        return replace(6, fmt::format("\\x{{{}}}", hex_digits(2, 4)));
      default:
        if (letter == '\0' || std::isalnum(static_cast<unsigned char>(letter)) != 0 ||
            static_cast<unsigned char>(letter) >= 0x80) {
          refuse(fmt::format("\"\\{}\"", printable(std::string_view(&letter, 1))));
        }
        return keep(2);
    }
  }

  // The `count` hexadecimal digits that stand `ahead`.
  std::string hex_digits(std::size_t ahead, std::size_t count) const {
    std::string digits;
    for (std::size_t i = 0; i < count; ++i) {
      if (std::isxdigit(static_cast<unsigned char>(peek(ahead + i))) == 0) {
        refuse("a code that is not hexadecimal");
      }
      digits += peek(ahead + i);
    }
    return digits;
  }

  void hexadecimal() {
    if (peek(2) == '{') {
      const std::size_t close = pattern_.find('}', at_);
      if (close == std::string_view::npos || close < at_ + 4 || close > at_ + 11) {
        refuse("a code that is not hexadecimal");
      }
      replace(close + 1 - at_, fmt::format("\\x{{{}}}", hex_digits(3, close - at_ - 3)));
    } else {
      const std::string digits = hex_digits(2, 2);
      if (digits[0] >= '8') {
        refuse("a byte of a character");  // Oniguruma takes \x80 and above for a raw byte
      }
      replace(4, fmt::format("\\x{{{}}}", digits));
    }
  }

  // General categories have one or two letters in both libraries; what is longer is a script.
  void property() {
    const std::size_t close = peek(2) == '{' ? pattern_.find('}', at_) : std::string_view::npos;
    if (close == std::string_view::npos) {
      refuse("a property without braces");
    }
    std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
    bool negated = peek(1) == 'P';
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    for (const char one : name) {
      if (std::isalpha(static_cast<unsigned char>(one)) == 0 && one != '_') {
        refuse(fmt::format("the property \"{}\"", printable(name, 60)));
      }
    }
    const bool category = name.size() <= 2;
    const bool binary = name == "Alphabetic" || name == "White_Space";
    replace(close + 1 - at_, fmt::format("\\{}{{{}{}}}", negated ? 'P' : 'p', category || binary ? "" : "sc:", name));
  }

  std::string_view pattern_;
  const std::string& source_;
  std::string result_;
  std::size_t at_ = 0;
  bool in_class_ = false;
};

template <typename T>
std::unique_ptr<T, void (*)(T*)> owned(T* pointer, void (*release)(T*)) {
  if (pointer == nullptr) {
    throw std::bad_alloc();
  }
  return {pointer, release};
}

}  // namespace

std::string translate_pattern(std::string_view pattern, const std::string& source) {
  return Translator(pattern, source).run();
}

Pattern Pattern::compile(std::string_view pattern, const std::string& source) {
  if (pattern.size() > kMaxPatternBytes) {
    throw UnsupportedError(fmt::format("{}: the split pattern has {} bytes, at most {} are supported", source,
                                       grouped(static_cast<std::int64_t>(pattern.size())), grouped(kMaxPatternBytes)));
  }
  return make(translate_pattern(pattern, source), pattern, source);
}

Pattern Pattern::literal(std::string_view text, const std::string& source) {
  std::string escaped;
  for (const char letter : text) {
    if (std::ispunct(static_cast<unsigned char>(letter)) != 0) {
      escaped += '\\';
    }
    escaped += letter;
  }
  return make(escaped, text, source);
}

Pattern Pattern::make(const std::string& translated, std::string_view pattern, const std::string& source) {
  const auto context = owned(pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get());
  if (code == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    throw FormatError(fmt::format("{}: the split pattern \"{}\" cannot be read: {}", source, printable(pattern, 120),
                                  printable(reinterpret_cast<const char*>(message.data()))));
  }
  Pattern result;
  result.code_ = std::shared_ptr<const void>(
      code, [](const void* held) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(held))); });
  result.jit_ = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  result.text_ = printable(pattern, 120);
  return result;
}

std::vector<Stretch> Pattern::find(std::string_view text) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const auto data = owned(pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  const auto context = owned(pcre2_match_context_create(nullptr), &pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_depth_limit(context.get(), kDepthLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKiB);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto search = [&](std::size_t from) {
    int found = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found =
          pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(), context.get());
    }
    return found;
  };
  std::vector<Stretch> stretches;
  std::size_t covered = 0;
  bool matched = false;  // a match ended at `covered`
  for (std::size_t from = 0; from <= text.size();) {
    const int found = search(from);
    if (found == PCRE2_ERROR_NOMATCH) {
      break;
    }
    if (found < 0) {
      throw InputError(
          fmt::format("the split pattern \"{}\" needs too many steps for this text near byte {}; cut the "
                      "text into smaller ones",
                      text_, grouped(static_cast<std::int64_t>(from))));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
    const std::size_t begin = ends[0];
    const std::size_t end = ends[1];
    if (begin == end && matched && end == covered) {
      // No empty match right behind a match: go on one character later.
      from = from < text.size() ? from + code_point_at(text, from).length : from + 1;
      continue;
    }
    if (begin > covered) {
      stretches.push_back({covered, begin, false});
    }
    stretches.push_back({begin, end, true});
    covered = end;
    from = end;
    matched = true;
  }
  if (covered < text.size()) {
    stretches.push_back({covered, text.size(), false});
  }
  return stretches;
}

}  // namespace caravan::tokenizer
