// The methods of strings, lists and dicts that change nothing.
#include <fmt/core.h>

#include <algorithm>

#include "caravan/base/text.h"
#include "caravan/jinja/call.h"
#include "caravan/jinja/filters.h"
#include "caravan/jinja/python.h"
#include "caravan/jinja/renderer.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

using Names = std::initializer_list<std::string_view>;

bool is_one_of(std::string_view name, Names names) {
  return std::ranges::find(names, name) != names.end();
}

// A call of one string's method.
class StringCall {
 public:
  StringCall(Engine& engine, const Value& self, std::string_view name, const Arguments& arguments)
      : engine_(engine), self_(self), text_(*self.text()), name_(name), arguments_(arguments) {}

  Value run() {
    engine_.step_bytes(text_.size());
    if (const std::optional<Value> result = changed_case()) {
      return *result;
    }
    if (const std::optional<Value> result = question()) {
      return *result;
    }
    if (is_one_of(name_, {"strip", "lstrip", "rstrip"})) {
      return stripped();
    }
    if (is_one_of(name_, {"split", "rsplit", "splitlines"})) {
      return pieces();
    }
    if (is_one_of(name_, {"find", "rfind", "index", "rindex", "count"})) {
      return place();
    }
    if (is_one_of(name_, {"startswith", "endswith"})) {
      return edge();
    }
    if (self_.is_safe()) {
      engine_.unsupported(fmt::format("the method {}() of a string marked safe", name_));
    }
    return other();
  }

 private:
  Bound bind(std::initializer_list<const char*> names, std::size_t required = 0) {
    return Bound(engine_, name_, arguments_, names, required);
  }

  Value same_kind(std::string text) { return make_string(engine_, std::move(text), self_.is_safe()); }

  std::optional<Value> changed_case() {
    if (!is_one_of(name_, {"upper", "lower", "title", "capitalize"})) {
      return std::nullopt;
    }
    bind({});
    const Charge room(engine_, 3 * text_.size());  // no mapping is longer
    return same_kind(name_ == "upper"   ? upper(text_)
                     : name_ == "lower" ? lower(text_)
                     : name_ == "title" ? title(text_)
                                        : capitalize(text_));
  }

  std::optional<Value> question() {
    using Question = bool (*)(std::string_view);
    static constexpr std::pair<std::string_view, Question> kQuestions[] = {
        {"isalpha", all_alpha}, {"isdecimal", all_decimal}, {"isdigit", all_digits}, {"isalnum", all_alphanumeric},
        {"isspace", all_space}, {"islower", is_lower},      {"isupper", is_upper}};
    for (const auto& [name, question] : kQuestions) {
      if (name == name_) {
        bind({});
        return question(text_);
      }
    }
    return std::nullopt;
  }

  Value stripped() {
    const Bound bound = bind({"chars"});
    const std::string* characters = bound.text(0);
    engine_.step_bytes(text_.size() * (characters == nullptr ? 1 : characters->size()));
    const Side side = name_ == "strip" ? Side::kBoth : name_ == "lstrip" ? Side::kLeft : Side::kRight;
    return same_kind(
        std::string(strip(text_, side, characters == nullptr ? std::optional<std::string_view>() : *characters)));
  }

  Value pieces() {
    ListBuilder list(engine_);
    const Sink sink = [&](std::string_view piece) { list.push(same_kind(std::string(piece))); };
    if (name_ == "splitlines") {
      split_lines(text_, bind({"keepends"}).flag(0, false), sink);
      return list.finish();
    }
    const Bound bound = bind({"sep", "maxsplit"});
    const std::string* separator = bound.text(0);
    if (separator != nullptr && separator->empty()) {
      engine_.fail("empty separator");
    }
    const auto by = separator == nullptr ? std::optional<std::string_view>() : *separator;
    if (name_ == "split") {
      split(text_, by, bound.integer(1, -1), sink);
    } else {
      const Charge room(engine_, 2 * text_.size());
      split_from_right(text_, by, bound.integer(1, -1), sink);
      std::ranges::reverse(list.items());
    }
    return list.finish();
  }

  // The bytes of text_[start:end]; nothing when start lies behind the end of the text.
  std::optional<std::pair<std::size_t, std::size_t>> part(const Bound& bound, std::size_t first) const {
    const std::int64_t size = length_of(text_);
    const auto at = [&](std::size_t index, std::int64_t otherwise) {
      const Value* value = bound[index];
      const std::int64_t given = value == nullptr || value->is_none() ? otherwise : bound.integer(index, 0);
      return given < 0 ? std::max<std::int64_t>(0, given + size) : given;
    };
    const std::int64_t start = at(first, 0);
    const std::int64_t end = std::min(at(first + 1, size), size);
    if (start > size || start > end) {
      return std::nullopt;
    }
    return std::pair(offset_of(text_, start), offset_of(text_, end));
  }

  Value place() {
    const Bound bound = bind({"sub", "start", "end"}, 1);
    const std::string* wanted = bound.text(0);
    if (wanted == nullptr) {
      engine_.fail(fmt::format("{}() must have a string to look for", name_));
    }
    const auto range = part(bound, 1);
    const std::string_view within =
        range ? std::string_view(text_).substr(range->first, range->second - range->first) : std::string_view();
    if (name_ == "count") {
      return !range ? std::int64_t{0} : count(within, *wanted);
    }
    const Charge room(engine_, 2 * text_.size());
    const std::size_t found = !range                                ? std::string_view::npos
                              : name_ == "find" || name_ == "index" ? find(within, *wanted)
                                                                    : find_last(within, *wanted);
    if (found != std::string_view::npos) {
      return length_of(std::string_view(text_).substr(0, range->first + found));
    }
    if (name_ == "index" || name_ == "rindex") {
      engine_.fail("substring not found");
    }
    return std::int64_t{-1};
  }

  static std::int64_t count(std::string_view text, std::string_view wanted) {
    if (wanted.empty()) {
      return length_of(text) + 1;
    }
    std::int64_t result = 0;
    for (std::size_t at = find(text, wanted); at != std::string_view::npos;
         at = find(text, wanted, at + wanted.size())) {
      ++result;
    }
    return result;
  }

  Value edge() {
    const Bound bound = bind({"prefix", "start", "end"}, 1);
    const auto range = part(bound, 1);
    const std::string_view within =
        range ? std::string_view(text_).substr(range->first, range->second - range->first) : std::string_view();
    const auto fits = [&](const Value& value) {
      if (value.text() == nullptr) {
        engine_.fail(fmt::format("{} first arg must be str or a tuple of str, not {}", name_, type_name(value)));
      }
      return range && (name_ == "startswith" ? within.starts_with(*value.text()) : within.ends_with(*value.text()));
    };
    const List* list = bound[0]->list();
    if (list == nullptr || list->flavour != List::Flavour::kTuple) {
      return fits(*bound[0]);
    }
    return std::ranges::any_of(list->items, fits);
  }

  Value other() {
    if (name_ == "replace") {
      return replaced();
    }
    if (name_ == "join") {
      return joined();
    }
    if (name_ == "format") {
      return formatted();
    }
    if (is_one_of(name_, {"removeprefix", "removesuffix"})) {
      const Bound bound = bind({"prefix"}, 1);
      const std::string* affix = bound.text(0);
      const bool front = name_ == "removeprefix";
      std::string_view rest = text_;
      if (affix == nullptr) {
        engine_.fail(fmt::format("{}() argument must be str", name_));
      }
      if ((front ? rest.starts_with(*affix) : rest.ends_with(*affix))) {
        rest = front ? rest.substr(affix->size()) : rest.substr(0, rest.size() - affix->size());
      }
      return same_kind(std::string(rest));
    }
    if (is_one_of(name_, {"partition", "rpartition"})) {
      return partitioned();
    }
    return padded();
  }

  Value replaced() {
    const Bound bound = bind({"old", "new", "count"}, 2);
    const std::string* old = bound.text(0);
    const std::string* by = bound.text(1);
    if (old == nullptr || by == nullptr) {
      engine_.fail("replace() takes two strings");
    }
    return replace_text(engine_, text_, *old, *by, bound.integer(2, -1));
  }

  Value joined() {
    const Bound bound = bind({"iterable"}, 1);
    Builder builder(engine_);
    Cursor cursor(engine_, *bound[0]);
    bool first = true;
    for (Value item; cursor.next(item); first = false) {
      if (item.text() == nullptr) {
        engine_.fail(fmt::format("sequence item: expected str instance, {} found", type_name(item)));
      }
      builder.append(first ? "" : text_);
      builder.append(*item.text());
    }
    return make_string(engine_, builder.take());
  }

  // "{}", "{0}" and "{name}", "{{" and "}}".
  Value formatted() {
    Builder builder(engine_);
    std::size_t automatic = 0;
    for (std::size_t at = 0; at < text_.size();) {
      const std::size_t brace = std::min(text_.find_first_of("{}", at), text_.size());
      builder.append(std::string_view(text_).substr(at, brace - at));
      at = brace;
      if (at == text_.size()) {
        break;
      }
      if (at + 1 < text_.size() && text_[at + 1] == text_[at]) {
        builder.append(std::string_view(text_).substr(at, 1));
        at += 2;
        continue;
      }
      const std::size_t end = text_.find('}', at);
      if (text_[at] == '}' || end == std::string::npos) {
        engine_.fail("a single brace in a format string");
      }
      append_text(engine_, builder, field(std::string_view(text_).substr(at + 1, end - at - 1), automatic));
      at = end + 1;
    }
    return make_string(engine_, builder.take());
  }

  const Value& field(std::string_view name, std::size_t& automatic) {
    if (name.find_first_of("{.[:!") != std::string_view::npos) {
      engine_.unsupported(fmt::format("the format field \"{}\"", printable(name, 60)));
    }
    const bool number =
        !name.empty() && name.size() < 4 && name.find_first_not_of("0123456789") == std::string_view::npos;
    if (name.empty() || number) {
      const std::size_t index = number ? static_cast<std::size_t>(std::stoi(std::string(name))) : automatic++;
      if (index >= arguments_.positional.size()) {
        engine_.fail(fmt::format("Replacement index {} out of range for positional args tuple", index));
      }
      return arguments_.positional[index];
    }
    for (const auto& [key, value] : arguments_.named) {
      if (key == name) {
        return value;
      }
    }
    engine_.fail(fmt::format("format() has no argument '{}'", printable(name, 60)));
  }

  Value partitioned() {
    const Bound bound = bind({"sep"}, 1);
    const std::string* separator = bound.text(0);
    if (separator == nullptr || separator->empty()) {
      engine_.fail("empty separator");
    }
    const bool front = name_ == "partition";
    const Charge room(engine_, 2 * text_.size());
    const std::size_t found = front ? find(text_, *separator) : find_last(text_, *separator);
    const std::string_view all = text_;
    std::string_view parts[3] = {front ? all : "", "", front ? "" : all};
    if (found != std::string_view::npos) {
      parts[0] = all.substr(0, found);
      parts[1] = *separator;
      parts[2] = all.substr(found + separator->size());
    }
    ListBuilder list(engine_);
    for (const std::string_view one : parts) {
      list.push(make_string(engine_, std::string(one)));
    }
    return list.finish(List::Flavour::kTuple);
  }

  // ljust, rjust, center, zfill
  Value padded() {
    const Bound bound = name_ == "zfill" ? bind({"width"}, 1) : bind({"width", "fillchar"}, 1);
    const std::string* fill = name_ == "zfill" ? nullptr : bound.text(1);
    if (fill != nullptr && (fill->size() != 1)) {
      engine_.unsupported("a fill character that is not one of ASCII");
    }
    const std::int64_t missing = std::max<std::int64_t>(0, bound.integer(0, 0) - length_of(text_));
    const char c = name_ == "zfill" ? '0' : fill == nullptr ? ' ' : (*fill)[0];
    // CPython's rounding of center().
    const std::int64_t odd = missing & bound.integer(0, 0) & 1;
    const std::int64_t left = name_ == "ljust" ? 0 : name_ == "center" ? missing / 2 + odd : missing;
    Builder builder(engine_);
    std::string_view rest = text_;
    if (name_ == "zfill" && (rest.starts_with('-') || rest.starts_with('+'))) {
      builder.append(rest.substr(0, 1));
      rest.remove_prefix(1);
    }
    builder.append(static_cast<std::size_t>(left), c);
    builder.append(rest);
    builder.append(static_cast<std::size_t>(missing - left), c);
    return make_string(engine_, builder.take());
  }

  Engine& engine_;
  const Value& self_;
  const std::string& text_;
  std::string_view name_;
  const Arguments& arguments_;
};

Value call_dict(Engine& engine, const Dict& dict, std::string_view name, const Arguments& arguments) {
  if (name == "get") {
    const Bound bound(engine, name, arguments, {"key", "default"}, 1);
    require_hashable(engine, *bound[0]);
    const Value* found = find_item(engine, dict, *bound[0]);
    return found != nullptr ? *found : bound[1] != nullptr ? *bound[1] : Value(None{});
  }
  const Bound bound(engine, name, arguments, {});
  if (name == "copy") {
    return make_dict(engine, dict.items);
  }
  ListBuilder list(engine);
  for (const auto& [key, value] : dict.items) {
    if (name == "items") {
      list.push(make_list(engine, {key, value}, List::Flavour::kTuple));
    } else {
      list.push(name == "keys" ? key : value);
    }
  }
  return list.finish(List::Flavour::kView);
}

Value call_list(Engine& engine, const Value& self, std::string_view name, const Arguments& arguments) {
  const List& list = *self.list();
  if (name == "copy") {
    const Bound bound(engine, name, arguments, {});
    return list_of(engine, self);
  }
  const Bound bound(engine, name, arguments, {"value"}, 1);
  std::int64_t count = 0;
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    if (!equal(engine, list.items[i], *bound[0])) {
      continue;
    }
    if (name == "index") {
      return static_cast<std::int64_t>(i);
    }
    ++count;
  }
  if (name == "index") {
    engine.fail("the value is not in the list");
  }
  return count;
}

}  // namespace

Value replace_text(Engine& engine, std::string_view text, std::string_view old, std::string_view by,
                   std::int64_t limit) {
  engine.step_bytes(text.size());
  Builder builder(engine);
  std::size_t begin = 0;
  std::size_t at = 0;
  for (std::int64_t count = 0; limit < 0 || count < limit; ++count) {
    const std::size_t found = find(text, old, at);
    if (found == std::string_view::npos) {
      break;
    }
    builder.append(text.substr(begin, found - begin));
    builder.append(by);
    begin = found + old.size();
    at = begin;
    if (old.empty()) {  // between all characters, and at both ends
      if (at >= text.size()) {
        break;
      }
      next_character(text, at);
    }
  }
  builder.append(text.substr(begin));
  return make_string(engine, builder.take());
}

MethodKind method_kind(const Value& self, std::string_view name) {
  if (self.is_string()) {
    if (is_one_of(name,
                  {"strip",     "lstrip",  "rstrip",  "split",     "rsplit",     "splitlines",   "startswith",
                   "endswith",  "upper",   "lower",   "title",     "capitalize", "replace",      "join",
                   "find",      "rfind",   "index",   "rindex",    "count",      "format",       "isalpha",
                   "isdecimal", "isdigit", "isalnum", "isspace",   "islower",    "isupper",      "zfill",
                   "ljust",     "rjust",   "center",  "partition", "rpartition", "removeprefix", "removesuffix"})) {
      return MethodKind::kKnown;
    }
    return is_one_of(name, {"casefold", "encode", "expandtabs", "format_map", "isascii", "isidentifier", "isnumeric",
                            "isprintable", "istitle", "maketrans", "swapcase", "translate"})
               ? MethodKind::kOutside
               : MethodKind::kNone;
  }
  if (self.is_dict()) {
    return is_one_of(name, {"get", "keys", "values", "items", "copy"})            ? MethodKind::kKnown
           : is_one_of(name, {"clear", "pop", "popitem", "setdefault", "update"}) ? MethodKind::kChanging
           : name == "fromkeys"                                                   ? MethodKind::kOutside
                                                                                  : MethodKind::kNone;
  }
  if (self.is_plain_list()) {
    const bool tuple = self.list()->flavour == List::Flavour::kTuple;
    return is_one_of(name, {"count", "index"}) || (name == "copy" && !tuple) ? MethodKind::kKnown
           : !tuple && is_one_of(name, {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"})
               ? MethodKind::kChanging
               : MethodKind::kNone;
  }
  return MethodKind::kNone;
}

Value call_method(Engine& engine, const Value& self, std::string_view name, const Arguments& arguments) {
  if (self.is_string()) {
    return StringCall(engine, self, name, arguments).run();
  }
  if (const Dict* dict = self.dict()) {
    return call_dict(engine, *dict, name, arguments);
  }
  if (const auto* loop = self.as<LoopPtr>()) {
    return (*loop)->call(engine, name, arguments);
  }
  return call_list(engine, self, name, arguments);
}

}  // namespace caravan::jinja
