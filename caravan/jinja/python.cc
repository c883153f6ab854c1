#include "caravan/jinja/python.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "caravan/base/text.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

bool is_generator(const Value& value) {
  return value.list() != nullptr && value.list()->flavour == List::Flavour::kGenerator;
}

void append_items(Engine& engine, Builder& builder, const std::vector<Value>& items) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    builder.append(i > 0 ? ", " : "");
    append_repr(engine, builder, items[i]);
  }
}

void append_list(Engine& engine, Builder& builder, const List& list) {
  const bool tuple = list.flavour == List::Flavour::kTuple;
  if (!tuple && list.flavour != List::Flavour::kList) {
    engine.unsupported("the text of a range, of a view or of a generator (the filter list makes a list of it)");
  }
  builder.append(tuple ? "(" : "[");
  append_items(engine, builder, list.items);
  builder.append(tuple ? (list.items.size() == 1 ? ",)" : ")") : "]");
}

void append_dict(Engine& engine, Builder& builder, const std::vector<std::pair<Value, Value>>& items) {
  builder.append("{");
  for (std::size_t i = 0; i < items.size(); ++i) {
    builder.append(i > 0 ? ", " : "");
    append_repr(engine, builder, items[i].first);
    builder.append(": ");
    append_repr(engine, builder, items[i].second);
  }
  builder.append("}");
}

// str.__repr__: between single quotes, unless only single ones stand in the text.
void append_quoted(Builder& builder, std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  constexpr std::size_t kChunk = 4096;
  std::string chunk(1, quote);
  for (std::size_t at = 0; at < text.size();) {
    append_escaped(chunk, next_character(text, at), quote);
    if (chunk.size() >= kChunk) {
      builder.append(chunk);
      chunk.clear();
    }
  }
  builder.append(chunk + quote);
}

// The text of anything but a string.
void append_other(Engine& engine, Builder& builder, const Value& value) {
  if (value.is_none()) {
    builder.append("None");
  } else if (const bool* boolean = value.as<bool>()) {
    builder.append(*boolean ? "True" : "False");
  } else if (const std::int64_t* integer = value.as<std::int64_t>()) {
    builder.append(std::to_string(*integer));
  } else if (const double* number = value.as<double>()) {
    builder.append(float_text(*number));
  } else if (const List* list = value.list()) {
    append_list(engine, builder, *list);
  } else if (const Dict* dict = value.dict()) {
    append_dict(engine, builder, dict->items);
  } else {
    engine.unsupported(fmt::format("the text of a {}", type_name(value)));
  }
}

bool same_numbers(const Value& a, const Value& b) {
  const auto integer = [](const Value& v) -> std::optional<std::int64_t> {
    if (const bool* boolean = v.as<bool>()) {
      return *boolean ? 1 : 0;
    }
    const std::int64_t* found = v.as<std::int64_t>();
    return found == nullptr ? std::nullopt : std::optional(*found);
  };
  if (const auto x = integer(a), y = integer(b); x && y) {
    return *x == *y;
  }
  // A whole number that no double holds is not equal to any.
  const auto exact = [&](const Value& whole, double number) {
    constexpr double kTwoTo63 = 9223372036854775808.0;
    const auto x = integer(whole);
    return number >= -kTwoTo63 && number < kTwoTo63 && number == std::trunc(number) &&
           *x == static_cast<std::int64_t>(number);
  };
  const double* x = a.as<double>();
  const double* y = b.as<double>();
  return x != nullptr && y != nullptr ? *x == *y : x != nullptr ? exact(b, *x) : exact(a, *y);
}

bool same_items(Engine& engine, const std::vector<Value>& a, const std::vector<Value>& b) {
  return std::ranges::equal(a, b, [&](const Value& x, const Value& y) { return equal(engine, x, y); });
}

bool same_dicts(Engine& engine, const Dict& a, const Dict& b) {
  return a.items.size() == b.items.size() && std::ranges::all_of(a.items, [&](const auto& item) {
           const Value* other = find_item(engine, b, item.first);
           return other != nullptr && equal(engine, item.second, *other);
         });
}

}  // namespace

std::string_view type_name(const Value& value) {
  if (const List* list = value.list()) {
    switch (list->flavour) {
      case List::Flavour::kList:
        return "list";
      case List::Flavour::kTuple:
        return "tuple";
      case List::Flavour::kRange:
        return "range";
      case List::Flavour::kView:
        return "dict_view";
      case List::Flavour::kGenerator:
        return "generator";
    }
  }
  return value.is_undefined()       ? "Undefined"
         : value.is_none()          ? "NoneType"
         : value.is<bool>()         ? "bool"
         : value.is<std::int64_t>() ? "int"
         : value.is<double>()       ? "float"
         : value.is_string()        ? "str"
         : value.is_dict()          ? "dict"
         : value.is<NamespacePtr>() ? "namespace"
         : value.is<LoopPtr>()      ? "loop"
                                    : "function";
}

bool truth(const Value& value) {
  if (const bool* boolean = value.as<bool>()) {
    return *boolean;
  }
  if (const std::int64_t* integer = value.as<std::int64_t>()) {
    return *integer != 0;
  }
  if (const double* number = value.as<double>()) {
    return *number != 0.0;
  }
  if (const std::string* text = value.text()) {
    return !text->empty();
  }
  if (const List* list = value.list()) {
    return list->flavour == List::Flavour::kGenerator || !list->items.empty();
  }
  if (const Dict* dict = value.dict()) {
    return !dict->items.empty();
  }
  return !value.is_undefined() && !value.is_none();
}

void fail_undefined(Engine& engine, const Undefined& undefined) {
  engine.fail(undefined.why ? undefined.why->text : "a value is undefined");
}

void append_text(Engine& engine, Builder& builder, const Value& value) {
  if (const std::string* text = value.text()) {
    builder.append(*text);
  } else if (!value.is_undefined()) {
    append_other(engine, builder, value);
  }
}

void append_repr(Engine& engine, Builder& builder, const Value& value) {
  if (const std::string* text = value.text()) {
    append_quoted(builder, *text);
  } else if (value.is_undefined()) {
    builder.append("Undefined");
  } else {
    append_other(engine, builder, value);
  }
}

std::string text_of(Engine& engine, const Value& value) {
  Builder builder(engine);
  append_text(engine, builder, value);
  return builder.take();
}

bool equal(Engine& engine, const Value& a, const Value& b) {
  engine.step();
  if (a.text() != nullptr || b.text() != nullptr) {
    if (a.text() == nullptr || b.text() == nullptr || a.text()->size() != b.text()->size()) {
      return false;
    }
    engine.step_bytes(a.text()->size());
    return *a.text() == *b.text();
  }
  if (number_of(a) || number_of(b)) {
    return number_of(a) && number_of(b) && same_numbers(a, b);
  }
  if (a.list() != nullptr && b.list() != nullptr) {
    const List& x = *a.list();
    const List& y = *b.list();
    const bool by_content = a.is_plain_list() || x.flavour == List::Flavour::kRange;
    return &x == &y || (by_content && x.flavour == y.flavour && same_items(engine, x.items, y.items));
  }
  if (a.is_dict() && b.is_dict()) {
    return a.dict() == b.dict() || same_dicts(engine, *a.dict(), *b.dict());
  }
  if (const auto* x = a.as<NamespacePtr>()) {
    return b.is<NamespacePtr>() && *x == *b.as<NamespacePtr>();
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool less(Engine& engine, const Value& a, const Value& b, std::string_view sign) {
  engine.step();
  if (a.text() != nullptr && b.text() != nullptr) {
    engine.step_bytes(std::min(a.text()->size(), b.text()->size()));
    return *a.text() < *b.text();  // UTF-8 orders as characters do
  }
  if (number_of(a) && number_of(b)) {
    if (!a.is<double>() && !b.is<double>()) {
      return integer_of(engine, a, "") < integer_of(engine, b, "");
    }
    return *number_of(a) < *number_of(b);
  }
  if (a.is_plain_list() && b.is_plain_list() && a.list()->flavour == b.list()->flavour) {
    const std::vector<Value>& x = a.list()->items;
    const std::vector<Value>& y = b.list()->items;
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(engine, x[i], y[i])) {
        return less(engine, x[i], y[i], sign);
      }
    }
    return x.size() < y.size();
  }
  for (const Value* one : {&a, &b}) {
    if (const Undefined* undefined = one->as<Undefined>()) {
      fail_undefined(engine, *undefined);
    }
  }
  engine.fail(fmt::format("'{}' not supported between instances of '{}' and '{}'", sign, type_name(a), type_name(b)));
}

bool compare(Engine& engine, Comparison how, const Value& a, const Value& b) {
  switch (how) {
    case Comparison::kEqual:
      return equal(engine, a, b);
    case Comparison::kUnequal:
      return !equal(engine, a, b);
    case Comparison::kLess:
      return less(engine, a, b);
    case Comparison::kLessEqual:
      return less(engine, a, b, "<=") || equal(engine, a, b);
    case Comparison::kGreater:
      return less(engine, b, a, ">");
    case Comparison::kGreaterEqual:
      return less(engine, b, a, ">=") || equal(engine, a, b);
    case Comparison::kIn:
      return contains(engine, b, a);
    case Comparison::kNotIn:
      break;
  }
  return !contains(engine, b, a);
}

bool contains(Engine& engine, const Value& container, const Value& item) {
  if (const std::string* text = container.text()) {
    if (item.text() == nullptr) {
      engine.fail(fmt::format("'in <string>' requires string as left operand, not {}", type_name(item)));
    }
    engine.step_bytes(text->size());
    return find(*text, *item.text()) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) {
    require_hashable(engine, item);
    return find_item(engine, *dict, item) != nullptr;
  }
  Cursor cursor(engine, container);
  for (Value one; cursor.next(one);) {
    if (equal(engine, one, item)) {
      return true;
    }
  }
  return false;
}

void require_hashable(Engine& engine, const Value& key) {
  if (key.is_dict() || (key.list() != nullptr && key.list()->flavour == List::Flavour::kList)) {
    engine.fail(fmt::format("unhashable type: '{}'", type_name(key)));
  }
  if (key.list() != nullptr && key.list()->flavour == List::Flavour::kTuple) {
    for (const Value& one : key.list()->items) {
      require_hashable(engine, one);
    }
  }
}

const Value* find_item(Engine& engine, const Dict& dict, const Value& key) {
  for (const auto& [name, value] : dict.items) {
    if (equal(engine, name, key)) {
      return &value;
    }
  }
  return nullptr;
}

const Value* find_item(Engine& engine, const Dict& dict, std::string_view key) {
  engine.step_bytes(dict.items.size() * 8);
  for (const auto& [name, value] : dict.items) {
    if (name.text() != nullptr && *name.text() == key) {
      return &value;
    }
  }
  return nullptr;
}

std::optional<std::int64_t> length(Engine& engine, const Value& value) {
  if (const std::string* text = value.text()) {
    engine.step_bytes(text->size());
    return length_of(*text);
  }
  if (value.list() != nullptr && !is_generator(value)) {
    return static_cast<std::int64_t>(value.list()->items.size());
  }
  if (const Dict* dict = value.dict()) {
    return static_cast<std::int64_t>(dict->items.size());
  }
  return value.is_undefined() ? std::optional<std::int64_t>(0) : std::nullopt;
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is_dict() || value.list() != nullptr;
}

Cursor::Cursor(Engine& engine, Value iterable) : engine_(engine), iterable_(std::move(iterable)) {
  if (!is_iterable(iterable_)) {
    engine.fail(fmt::format("'{}' object is not iterable", type_name(iterable_)));
  }
  if (is_generator(iterable_)) {
    List& list = *iterable_.list();
    at_ = list.consumed ? list.items.size() : 0;
    list.consumed = true;
  }
}

bool Cursor::next(Value& item) {
  engine_.step();
  if (const std::string* text = iterable_.text()) {
    if (at_ >= text->size()) {
      return false;
    }
    const std::size_t begin = at_;
    next_character(*text, at_);
    item = make_string(engine_, text->substr(begin, at_ - begin));
    return true;
  }
  if (const List* list = iterable_.list()) {
    if (at_ >= list->items.size()) {
      return false;
    }
    item = list->items[at_++];
    return true;
  }
  const Dict* dict = iterable_.dict();
  if (dict == nullptr || at_ >= dict->items.size()) {
    return false;
  }
  item = dict->items[at_++].first;
  return true;
}

std::optional<std::int64_t> Cursor::length() const {
  return is_generator(iterable_) ? std::nullopt : jinja::length(engine_, iterable_);
}

Value list_of(Engine& engine, const Value& iterable) {
  Cursor cursor(engine, iterable);
  ListBuilder list(engine);
  for (Value item; cursor.next(item);) {
    list.push(std::move(item));
  }
  return list.finish();
}

std::int64_t integer_of(Engine& engine, const Value& value, std::string_view what) {
  if (const bool* boolean = value.as<bool>()) {
    return *boolean ? 1 : 0;
  }
  if (const std::int64_t* integer = value.as<std::int64_t>()) {
    return *integer;
  }
  engine.fail(fmt::format("{} must be a whole number, found {}", what, type_name(value)));
}

std::optional<double> number_of(const Value& value) {
  if (const bool* boolean = value.as<bool>()) {
    return *boolean ? 1.0 : 0.0;
  }
  if (const std::int64_t* integer = value.as<std::int64_t>()) {
    return static_cast<double>(*integer);
  }
  const double* number = value.as<double>();
  return number == nullptr ? std::nullopt : std::optional(*number);
}

}  // namespace caravan::jinja
