#include "caravan/tokenizer/model_scan.h"

#include <emmintrin.h>

#include <algorithm>
#include <array>
#include <bit>

#include "caravan/tokenizer/utf8.h"
#include "caravan/tokenizer/vocabulary.h"

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kMaxBytes = std::size_t{64} << 20;  // JsonLimits

// Thrown by nobody but the scanner, caught by nobody else.
struct NotPlain {};

class Scanner {
 public:
  Scanner(std::string_view text, ScannedModel& model) : text_(text), model_(model) {}

  void scan() {
    object([this](std::string_view key) {
      if (key != "model" || std::exchange(seen_model_, true)) {
        return skip();
      }
      object([this](std::string_view name) {
        if (name == "vocab" && model_.vocabulary.empty()) {
          cut("{}", [this] { vocabulary(); });
        } else if (name == "merges" && model_.merges.empty()) {
          cut("[]", [this] { merges(); });
        } else {
          skip();
        }
      });
    });
    model_.rest.append(text_.substr(kept_));
    if (model_.vocabulary.empty()) {
      throw NotPlain();
    }
  }

 private:
  void need(bool holds) const {
    if (!holds) {
      throw NotPlain();
    }
  }
  void spaces() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
      ++at_;
    }
  }
  char peek() {
    spaces();
    need(at_ < text_.size());
    return text_[at_];
  }
  void take(char wanted) {
    need(peek() == wanted);
    ++at_;
  }

  // What stands between brackets with commas; each() reads one.
  template <typename Each>
  void items(char open, char close, Each each) {
    take(open);
    if (peek() == close) {
      ++at_;
      return;
    }
    while (true) {
      each();
      if (peek() == close) {
        ++at_;
        return;
      }
      take(',');
    }
  }

  template <typename Member>
  void object(Member member) {
    items('{', '}', [&] {
      const std::string_view key = string();
      take(':');
      member(key);
    });
  }

  // The first byte from `at` on that ends a stretch of plain characters: a quote, a backslash, a control character.
  std::size_t plain_end(std::size_t at) const {
    for (; at + 16 <= text_.size(); at += 16) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text_.data() + at));
      const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
      const __m128i ends =
          _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
      if (const int found = _mm_movemask_epi8(_mm_or_si128(control, ends)); found != 0) {
        return at + static_cast<std::size_t>(std::countr_zero(static_cast<unsigned>(found)));
      }
    }
    while (at < text_.size() && text_[at] != '"' && text_[at] != '\\' &&
           static_cast<unsigned char>(text_[at]) >= 0x20) {
      ++at;
    }
    return at;
  }

  std::string_view string() {
    take('"');
    const std::size_t begin = at_;
    at_ = plain_end(at_);
    need(at_ < text_.size());
    if (text_[at_] == '"') {
      return text_.substr(begin, at_++ - begin);
    }
    if (model_.unescaped.capacity() < text_.size()) {
      model_.unescaped.reserve(text_.size());  // never longer, so that views stay
    }
    const std::size_t from = model_.unescaped.size();
    model_.unescaped.append(text_.substr(begin, at_ - begin));
    while (text_[at_] != '"') {
      need(text_[at_] == '\\');
      escape();
      const std::size_t end = plain_end(at_);
      model_.unescaped.append(text_.substr(at_, end - at_));
      at_ = end;
      need(at_ < text_.size());
    }
    ++at_;
    return std::string_view(model_.unescaped).substr(from);
  }

  void escape() {
    need(at_ + 1 < text_.size());
    const char letter = text_[at_ + 1];
    at_ += 2;
    constexpr std::string_view kNames = "\"\\/bfnrt";
    constexpr std::string_view kMeant = "\"\\/\b\f\n\r\t";
    if (const std::size_t found = kNames.find(letter); found != std::string_view::npos) {
      model_.unescaped += kMeant[found];
      return;
    }
    need(letter == 'u');
    char32_t character = four_digits();
    if (character >= 0xD800 && character < 0xDC00) {
      need(text_.substr(at_).starts_with("\\u"));
      at_ += 2;
      const char32_t low = four_digits();
      need(low >= 0xDC00 && low < 0xE000);
      character = 0x10000 + ((character - 0xD800) << 10) + (low - 0xDC00);
    } else {
      need(character < 0xD800 || character >= 0xE000);
    }
    append_utf8(model_.unescaped, character);
  }

  char32_t four_digits() {
    need(at_ + 4 <= text_.size());
    char32_t value = 0;
    for (int i = 0; i < 4; ++i) {
      const char digit = text_[at_++];
      const char small = static_cast<char>(digit | 0x20);
      need((digit >= '0' && digit <= '9') || (small >= 'a' && small <= 'f'));
      value = value << 4 | static_cast<char32_t>(digit <= '9' ? digit - '0' : small - 'a' + 10);
    }
    return value;
  }

  std::int32_t number() {
    const char first = peek();
    std::int32_t value = 0;
    std::size_t digits = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_, ++digits) {
      need(digits < 8);
      value = value * 10 + (text_[at_] - '0');
    }
    need(digits > 0 && (first != '0' || digits == 1) && value <= kMaxId);
    return value;
  }

  // Over a value of any kind.  Nothing but its extent is found; that it is one, the reader of the rest will see.
  void skip() {
    std::size_t depth = 0;
    do {
      const char first = peek();
      if (first == '"') {
        string();
      } else if (first == '{' || first == '[') {
        ++depth;
        ++at_;
      } else if (first == '}' || first == ']') {
        need(depth > 0);
        --depth;
        ++at_;
      } else if (first == ',' || first == ':') {
        need(depth > 0);
        ++at_;
      } else {
        const std::size_t begin = at_;
        at_ = std::min(text_.find_first_of(",:]}[{\" \t\r\n", at_), text_.size());
        need(at_ > begin);
      }
    } while (depth > 0);
  }

  template <typename Read>
  void cut(std::string_view instead, Read read) {
    spaces();
    model_.rest.append(text_.substr(kept_, at_ - kept_)).append(instead);
    read();
    kept_ = at_;
  }

  void vocabulary() {
    object([this](std::string_view spelling) { model_.vocabulary.emplace_back(spelling, number()); });
  }

  void merges() {
    items('[', ']', [this] {
      if (peek() == '[') {
        std::array<std::string_view, 2> halves;
        std::size_t count = 0;
        items('[', ']', [&] {
          need(count < 2);
          halves[count++] = string();
        });
        need(count == 2);
        model_.merges.emplace_back(halves[0], halves[1]);
        return;
      }
      const std::string_view line = string();
      const std::size_t space = line.find(' ');
      need(space != std::string_view::npos && line.find(' ', space + 1) == std::string_view::npos &&
           !line.starts_with("#version"));
      model_.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
    });
  }

  std::string_view text_;
  ScannedModel& model_;
  std::size_t at_ = 0;
  std::size_t kept_ = 0;  // up to here the text is in `rest`
  bool seen_model_ = false;
};

}  // namespace

std::optional<ScannedModel> scan_model(std::string_view text) {
  if (text.size() > kMaxBytes || first_invalid_byte(text)) {
    return std::nullopt;
  }
  std::optional<ScannedModel> model(std::in_place);
  try {
    Scanner(text, *model).scan();
  } catch (const NotPlain&) {
    model.reset();
  }
  return model;
}

}  // namespace caravan::tokenizer
