// printf's conversions (text % values) and json.dumps.
#include <fmt/core.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "caravan/jinja/python.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

// One conversion of a format: %[(name)][flags][width][.precision]kind
struct Conversion {
  std::optional<std::string_view> name;
  bool left = false;
  bool zeros = false;
  bool sign = false;
  bool space = false;
  int width = 0;
  std::optional<int> precision;
  char kind = 's';
};

class PercentFormat {
 public:
  PercentFormat(Engine& engine, std::string_view format, const Value& values)
      : engine_(engine), format_(format), values_(values), builder_(engine) {}

  Value run() {
    for (std::size_t at = 0; at < format_.size();) {
      const std::size_t percent = std::min(format_.find('%', at), format_.size());
      builder_.append(format_.substr(at, percent - at));
      at = percent;
      if (at < format_.size()) {
        ++at;
        convert(read(at));
      }
    }
    // Python takes a list for a mapping here.
    const bool mapping = values_.is_dict() || (values_.list() != nullptr && !is_tuple());
    if (!mapping && used_ != given()) {
      engine_.fail("not all arguments converted during string formatting");
    }
    return make_string(engine_, builder_.take());
  }

 private:
  static constexpr int kMaxWidth = 1000;

  bool is_tuple() const { return values_.list() != nullptr && values_.list()->flavour == List::Flavour::kTuple; }
  std::size_t given() const { return is_tuple() ? values_.list()->items.size() : 1; }

  char at_or_fail(std::size_t at) const {
    if (at >= format_.size()) {
      engine_.fail("incomplete format");
    }
    return format_[at];
  }

  int digits(std::size_t& at) const {
    int number = 0;
    while (at_or_fail(at) >= '0' && format_[at] <= '9') {
      number = number * 10 + (format_[at++] - '0');
      if (number > kMaxWidth) {
        engine_.unsupported(fmt::format("a format wider than {}", kMaxWidth));
      }
    }
    return number;
  }

  Conversion read(std::size_t& at) const {
    Conversion result;
    if (at_or_fail(at) == '(') {
      const std::size_t end = format_.find(')', at);
      if (end == std::string_view::npos) {
        engine_.fail("incomplete format key");
      }
      result.name = format_.substr(at + 1, end - at - 1);
      at = end + 1;
    }
    for (bool flag = true; flag;) {
      switch (at_or_fail(at)) {
        case '-':
          result.left = true;
          break;
        case '0':
          result.zeros = true;
          break;
        case '+':
          result.sign = true;
          break;
        case ' ':
          result.space = true;
          break;
        default:
          flag = false;
      }
      at += flag ? 1 : 0;
    }
    result.width = digits(at);
    if (at_or_fail(at) == '.') {
      result.precision = digits(++at);
    }
    result.kind = at_or_fail(at++);
    return result;
  }

  const Value& next(const Conversion& conversion) {
    if (conversion.name) {
      const Dict* dict = values_.dict();
      const Value* found = dict == nullptr ? nullptr : find_item(engine_, *dict, *conversion.name);
      if (found == nullptr) {
        engine_.fail("format requires a mapping that has the key");
      }
      return *found;
    }
    if (used_ >= given()) {
      engine_.fail("not enough arguments for format string");
    }
    return is_tuple() ? values_.list()->items[used_++] : (++used_, values_);
  }

  void convert(const Conversion& conversion) {
    if (conversion.kind == '%') {
      builder_.append("%");
      return;
    }
    const Value& value = next(conversion);
    switch (conversion.kind) {
      case 's':
        return pad(conversion, cut(conversion, text_of(engine_, value)));
      case 'r': {
        Builder text(engine_);
        append_repr(engine_, text, value);
        return pad(conversion, cut(conversion, text.take()));
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        return integer(conversion, value);
      case 'f':
      case 'F':
      case 'e':
      case 'E':
      case 'g':
      case 'G':
        return number(conversion, value);
      default:
        engine_.unsupported(fmt::format("the conversion %{}", conversion.kind));
    }
  }

  static std::string cut(const Conversion& conversion, std::string text) {
    if (conversion.precision) {
      text.resize(offset_of(text, *conversion.precision));
    }
    return text;
  }

  void integer(const Conversion& conversion, const Value& value) {
    std::int64_t whole = 0;
    if (const double* fraction = value.as<double>(); fraction != nullptr && std::abs(*fraction) < 9e18) {
      whole = static_cast<std::int64_t>(*fraction);
    } else {
      whole = integer_of(engine_, value, "a value formatted as a whole number");
    }
    const std::uint64_t size = whole < 0 ? 0 - static_cast<std::uint64_t>(whole) : static_cast<std::uint64_t>(whole);
    std::string text = conversion.kind == 'x'   ? fmt::format("{:x}", size)
                       : conversion.kind == 'X' ? fmt::format("{:X}", size)
                       : conversion.kind == 'o' ? fmt::format("{:o}", size)
                                                : fmt::format("{}", size);
    const auto wanted = static_cast<std::size_t>(conversion.precision.value_or(0));
    text.insert(0, text.size() < wanted ? wanted - text.size() : 0, '0');
    pad_number(conversion, whole < 0, std::move(text));
  }

  void number(const Conversion& conversion, const Value& value) {
    const std::optional<double> found = number_of(value);
    if (!found) {
      engine_.fail(fmt::format("must be real number, not {}", type_name(value)));
    }
    const double size = std::abs(*found);
    const int precision = conversion.precision.value_or(6);
    std::string text;
    switch (conversion.kind | 0x20) {
      case 'f':
        text = fmt::format("{:.{}f}", size, precision);
        break;
      case 'e':
        text = fmt::format("{:.{}e}", size, precision);
        break;
      default:
        text = fmt::format("{:.{}g}", size, precision);
    }
    if ((conversion.kind & 0x20) == 0) {
      std::ranges::transform(text, text.begin(), [](char c) { return c >= 'a' && c <= 'z' ? char(c - 32) : c; });
    }
    pad_number(conversion, std::signbit(*found), std::move(text));
  }

  void pad_number(const Conversion& conversion, bool below_zero, std::string text) {
    const std::string sign = below_zero ? "-" : conversion.sign ? "+" : conversion.space ? " " : "";
    const auto width = static_cast<std::size_t>(conversion.width);
    if (conversion.zeros && !conversion.left && text.size() + sign.size() < width) {
      text.insert(0, width - text.size() - sign.size(), '0');
    }
    pad(conversion, sign + text);
  }

  void pad(const Conversion& conversion, const std::string& text) {
    const std::int64_t missing = std::max<std::int64_t>(0, conversion.width - length_of(text));
    if (!conversion.left) {
      builder_.append(static_cast<std::size_t>(missing), ' ');
    }
    builder_.append(text);
    if (conversion.left) {
      builder_.append(static_cast<std::size_t>(missing), ' ');
    }
  }

  Engine& engine_;
  std::string_view format_;
  const Value& values_;
  Builder builder_;
  std::size_t used_ = 0;
};

// json.dumps.
class JsonWriter {
 public:
  JsonWriter(Engine& engine, Builder& builder, const JsonStyle& style)
      : engine_(engine), builder_(builder), style_(style) {}

  void write(const Value& value) {
    engine_.step();
    if (const std::string* text = value.text()) {
      string(*text);
    } else if (value.is_plain_list()) {
      list(value.list()->items);
    } else if (const Dict* dict = value.dict()) {
      object(*dict);
    } else {
      builder_.append(scalar(value));
    }
  }

 private:
  std::string scalar(const Value& value) const {
    if (value.is_none()) {
      return "null";
    }
    if (const bool* boolean = value.as<bool>()) {
      return *boolean ? "true" : "false";
    }
    if (const std::int64_t* integer = value.as<std::int64_t>()) {
      return std::to_string(*integer);
    }
    if (const double* number = value.as<double>()) {
      return std::isnan(*number)   ? "NaN"
             : std::isinf(*number) ? (*number < 0 ? "-Infinity" : "Infinity")
                                   : float_text(*number);
    }
    engine_.fail(fmt::format("Object of type {} is not JSON serializable", type_name(value)));
  }

  void new_line() {
    if (style_.indent) {
      builder_.append("\n");
      for (int i = 0; i < level_; ++i) {
        builder_.append(*style_.indent);
      }
    }
  }

  void list(const std::vector<Value>& items) {
    if (items.empty()) {
      builder_.append("[]");
      return;
    }
    builder_.append("[");
    ++level_;
    for (std::size_t i = 0; i < items.size(); ++i) {
      builder_.append(i > 0 ? style_.item_separator : "");
      new_line();
      write(items[i]);
    }
    --level_;
    new_line();
    builder_.append("]");
  }

  void object(const Dict& dict) {
    if (dict.items.empty()) {
      builder_.append("{}");
      return;
    }
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) {
      items.push_back(&item);
    }
    if (style_.sort_keys) {
      std::ranges::stable_sort(items, [&](const auto* a, const auto* b) { return less(engine_, a->first, b->first); });
    }
    builder_.append("{");
    ++level_;
    for (std::size_t i = 0; i < items.size(); ++i) {
      builder_.append(i > 0 ? style_.item_separator : "");
      new_line();
      key(items[i]->first);
      builder_.append(style_.key_separator);
      write(items[i]->second);
    }
    --level_;
    new_line();
    builder_.append("}");
  }

  void key(const Value& value) {
    if (value.list() != nullptr) {
      engine_.fail(fmt::format("keys must be str, int, float, bool or None, not {}", type_name(value)));
    }
    string(value.text() != nullptr ? *value.text() : scalar(value));
  }

  void string(const std::string& text) {
    builder_.append("\"");
    std::size_t plain = 0;  // what was not written yet begins here
    const auto escape = [&](std::size_t from, std::size_t to, const std::string& by) {
      builder_.append(std::string_view(text).substr(plain, from - plain));
      builder_.append(by);
      plain = to;
    };
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t begin = at;
      const auto byte = static_cast<unsigned char>(text[at]);
      if (byte >= 0x80 && style_.ensure_ascii) {
        const char32_t c = next_character(text, at);
        escape(begin, at, c < 0x10000 ? unicode(c) : unicode(0xD7C0 + (c >> 10)) + unicode(0xDC00 + (c & 0x3FF)));
        continue;
      }
      ++at;
      if (byte == '"' || byte == '\\') {
        escape(begin, at, std::string("\\") + static_cast<char>(byte));
      } else if (byte < 0x20 || (byte == 0x7F && style_.ensure_ascii)) {
        escape(begin, at, control(byte));
      }
    }
    builder_.append(std::string_view(text).substr(plain));
    builder_.append("\"");
  }

  static std::string unicode(char32_t unit) { return fmt::format("\\u{:04x}", static_cast<std::uint32_t>(unit)); }

  static std::string control(unsigned char byte) {
    switch (byte) {
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\f':
        return "\\f";
      case '\b':
        return "\\b";
      default:
        return unicode(byte);
    }
  }

  Engine& engine_;
  Builder& builder_;
  const JsonStyle& style_;
  int level_ = 0;
};

}  // namespace

Value percent_format(Engine& engine, std::string_view format, const Value& values) {
  return PercentFormat(engine, format, values).run();
}

void append_json(Engine& engine, Builder& builder, const Value& value, const JsonStyle& style) {
  JsonWriter(engine, builder, style).write(value);
}

}  // namespace caravan::jinja
