// Filters of text.
#include <fmt/core.h>

#include <algorithm>

#include "caravan/jinja/filters.h"
#include "caravan/jinja/python.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

// The value's text through a method of strings.
Value through(Engine& engine, const Value& value, std::string_view method, const Arguments& arguments) {
  return call_method(engine, as_text(engine, value), method, arguments);
}

const std::string& string_or_fail(Engine& engine, const Value& value, std::string_view filter) {
  if (value.text() == nullptr) {
    if (const Undefined* undefined = value.as<Undefined>()) {
      fail_undefined(engine, *undefined);
    }
    engine.fail(fmt::format("{}() wants a string, found {}", filter, type_name(value)));
  }
  return *value.text();
}

bool begins_word(char32_t character) {
  return character == '-' || is_space(character) || character == '(' || character == '{' || character == '[' ||
         character == '<';
}

// So many blanks, which are counted before they are made.
std::string blanks(Engine& engine, std::int64_t count) {
  const auto size = static_cast<std::size_t>(std::max<std::int64_t>(0, count));
  const Charge room(engine, size);
  return std::string(size, ' ');
}

// The indentation of a filter: a number of blanks or a text; nothing for none.
std::optional<std::string> indentation(Engine& engine, const Value* value) {
  if (value == nullptr || value->is_none()) {
    return std::nullopt;
  }
  return value->text() != nullptr ? *value->text() : blanks(engine, integer_of(engine, *value, "an indentation"));
}

}  // namespace

Value as_text(Engine& engine, const Value& value) {
  return value.is_string() ? value : make_string(engine, text_of(engine, value));
}

namespace filters {

Value capitalize(Engine& engine, const Value& value, const Arguments& arguments) {
  return through(engine, value, "capitalize", arguments);
}

Value center(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "center", arguments, {"width"});
  return through(engine, value, "center", {{bound.integer(0, 80)}, {}});
}

Value escape(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "escape", arguments, {});
  if (value.is_safe()) {
    return value;
  }
  Builder builder(engine);
  append_escaped_html(builder, *as_text(engine, value).text());
  return make_string(engine, builder.take(), /*safe=*/true);
}

Value format(Engine& engine, const Value& value, const Arguments& arguments) {
  const Value text = as_text(engine, value);
  if (text.is_safe()) {
    engine.unsupported("the filter \"format\" on a string marked safe");
  }
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    engine.fail("can't handle positional and keyword arguments at the same time");
  }
  if (arguments.named.empty()) {
    return percent_format(engine, *text.text(), make_list(engine, arguments.positional, List::Flavour::kTuple));
  }
  std::vector<std::pair<Value, Value>> items;
  for (const auto& [name, one] : arguments.named) {
    items.emplace_back(make_string(engine, name), one);
  }
  return percent_format(engine, *text.text(), make_dict(engine, std::move(items)));
}

Value indent(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "indent", arguments, {"width", "first", "blank"});
  const std::string& text = string_or_fail(engine, value, "indent");
  engine.step_bytes(text.size());
  const std::string by = indentation(engine, bound[0]).value_or(std::string(4, ' '));
  const bool blank = bound.flag(2, false);
  Builder builder(engine);
  bool first = true;
  split_lines(text + "\n", /*keep_ends=*/false, [&](std::string_view line) {
    builder.append(first ? "" : "\n");
    if (first ? bound.flag(1, false) : blank || !line.empty()) {
      builder.append(by);
    }
    builder.append(line);
    first = false;
  });
  return make_string(engine, builder.take(), value.is_safe());
}

Value lower(Engine& engine, const Value& value, const Arguments& arguments) {
  return through(engine, value, "lower", arguments);
}

Value replace(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "replace", arguments, {"old", "new", "count"}, 2);
  const Value text = as_text(engine, value);
  const Value old = as_text(engine, *bound[0]);
  const Value by = as_text(engine, *bound[1]);
  const bool all = bound[2] == nullptr || bound[2]->is_none();
  return replace_text(engine, *text.text(), *old.text(), *by.text(), all ? -1 : bound.integer(2, -1));
}

Value safe(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "safe", arguments, {});
  return make_string(engine, text_of(engine, value), /*safe=*/true);
}

Value string(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "string", arguments, {});
  return as_text(engine, value);
}

// Words begin behind white space and -({[<; the first character of each in upper case, the others in lower case.
Value title(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "title", arguments, {});
  const Value keep = as_text(engine, value);
  const std::string_view text = *keep.text();
  engine.step_bytes(text.size());
  const Charge room(engine, 3 * text.size());
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t begin = at;
    const char32_t character = next_character(text, at);
    if (begins_word(character)) {
      result.append(text.substr(begin, at - begin));
      continue;
    }
    result += jinja::upper(text.substr(begin, at - begin));
    begin = at;
    for (std::size_t end = at; end < text.size() && !begins_word(next_character(text, end));) {
      at = end;
    }
    result += jinja::lower(text.substr(begin, at - begin));
  }
  return make_string(engine, std::move(result));
}

Value tojson(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.flag(0, false);
  style.indent = indentation(engine, bound[1]);
  style.item_separator = style.indent ? "," : ", ";
  style.sort_keys = bound.flag(3, false);
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    const List* list = bound[2]->list();
    if (list == nullptr || list->items.size() != 2 || !list->items[0].is_string() || !list->items[1].is_string()) {
      engine.fail("separators must be two strings");
    }
    style.item_separator = *list->items[0].text();
    style.key_separator = *list->items[1].text();
  }
  Builder builder(engine);
  append_json(engine, builder, value, style);
  return make_string(engine, builder.take());
}

Value trim(Engine& engine, const Value& value, const Arguments& arguments) {
  return through(engine, value, "strip", arguments);
}

Value truncate(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "truncate", arguments, {"length", "killwords", "end", "leeway"});
  const std::string_view text = string_or_fail(engine, value, "truncate");
  engine.step_bytes(text.size());
  const std::string end = bound.text(2) == nullptr ? "..." : *bound.text(2);
  const std::int64_t length = bound.integer(0, 255);
  const bool none = bound[3] == nullptr || bound[3]->is_none();
  const std::int64_t leeway = none ? 5 : bound.integer(3, 5);
  if (length < length_of(end) || leeway < 0) {
    engine.fail("truncate() needs a length that its end fits in, and a leeway of at least 0");
  }
  if (length_of(text) - leeway <= length) {
    return value;
  }
  std::string_view kept = text.substr(0, offset_of(text, length - length_of(end)));
  if (!bound.flag(1, false)) {
    kept = kept.substr(0, std::min(kept.rfind(' '), kept.size()));
  }
  Builder builder(engine);
  builder.append(kept);
  builder.append(end);
  return make_string(engine, builder.take());
}

Value upper(Engine& engine, const Value& value, const Arguments& arguments) {
  return through(engine, value, "upper", arguments);
}

}  // namespace filters

}  // namespace caravan::jinja
