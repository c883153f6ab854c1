// Attributes and items.
#include <fmt/core.h>

#include "caravan/base/text.h"
#include "caravan/jinja/call.h"
#include "caravan/jinja/python.h"
#include "caravan/jinja/renderer.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

Value missing(Engine& engine, const Value& object, std::string_view name) {
  return make_undefined(engine,
                        fmt::format("'{} object' has no attribute '{}'", type_name(object), printable(name, 60)));
}

// A method of the value by that name, or nullptr content.
std::optional<Value> method_of(Engine& engine, const Value& object, std::string_view name) {
  switch (method_kind(object, name)) {
    case MethodKind::kNone:
      return std::nullopt;
    case MethodKind::kKnown:
      return make_function(engine, Function::Kind::kMethod, name, object);
    case MethodKind::kChanging:
      return make_undefined(engine,
                            fmt::format("access to attribute '{}' of '{} object' is unsafe", name, type_name(object)));
    case MethodKind::kOutside:
      break;
  }
  engine.unsupported(fmt::format("the method {}() of a {}", name, type_name(object)));
}

// What is neither a method nor an item of a dict.
std::optional<Value> own_attribute(Engine& engine, const Value& object, std::string_view name) {
  if (const auto* space = object.as<NamespacePtr>()) {
    for (const auto& [attribute, value] : (*space)->attributes) {
      if (attribute == name) {
        return value;
      }
    }
    return std::nullopt;
  }
  if (const auto* loop = object.as<LoopPtr>()) {
    return (*loop)->attribute(engine, object, name);
  }
  return method_of(engine, object, name);
}

// The item at a whole number, counted from the end when it is below zero.
std::optional<Value> item_at(Engine& engine, const Value& object, std::int64_t index) {
  if (const std::string* text = object.text()) {
    engine.step_bytes(text->size());
    const std::int64_t size = length_of(*text);
    index += index < 0 ? size : 0;
    if (index < 0 || index >= size) {
      return std::nullopt;
    }
    const std::size_t begin = offset_of(*text, index);
    std::size_t end = begin;
    next_character(*text, end);
    return make_string(engine, text->substr(begin, end - begin), object.is_safe());
  }
  const List* list = object.list();
  if (list == nullptr || list->flavour == List::Flavour::kView || list->flavour == List::Flavour::kGenerator) {
    return std::nullopt;
  }
  const auto size = static_cast<std::int64_t>(list->items.size());
  index += index < 0 ? size : 0;
  return index < 0 || index >= size ? std::nullopt : std::optional(list->items[static_cast<std::size_t>(index)]);
}

}  // namespace

Value attribute_of(Engine& engine, const Value& value, const std::string& name) {
  if (const Undefined* undefined = value.as<Undefined>()) {
    fail_undefined(engine, *undefined);
  }
  if (const std::optional<Value> own = own_attribute(engine, value, name)) {
    return *own;
  }
  if (const Dict* dict = value.dict()) {
    if (const Value* item = find_item(engine, *dict, name)) {
      return *item;
    }
  }
  return missing(engine, value, name);
}

Value item_of(Engine& engine, const Value& value, const Value& key) {
  if (const Undefined* undefined = value.as<Undefined>()) {
    fail_undefined(engine, *undefined);
  }
  if (const Dict* dict = value.dict()) {
    const bool hashable = !key.is_dict() && !(key.list() != nullptr && key.list()->flavour == List::Flavour::kList);
    if (const Value* item = hashable ? find_item(engine, *dict, key) : nullptr) {
      return *item;
    }
  } else if (key.is<std::int64_t>() || key.is<bool>()) {
    if (const std::optional<Value> item = item_at(engine, value, integer_of(engine, key, "an index"))) {
      return *item;
    }
  }
  if (const std::string* name = key.text()) {
    if (const std::optional<Value> own = own_attribute(engine, value, *name)) {
      return *own;
    }
    return missing(engine, value, *name);
  }
  Builder shown(engine);
  if (number_of(key)) {
    append_repr(engine, shown, key);
  }
  return make_undefined(engine, fmt::format("'{} object' has no element {}", type_name(value), shown.take()));
}

}  // namespace caravan::jinja
