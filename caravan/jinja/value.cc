#include "caravan/jinja/value.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/jinja/python.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

constexpr int kMaxDataDepth = 100;

int depth_of(const Value& value) {
  if (const List* list = value.list()) {
    return list->depth;
  }
  return value.is_dict() ? value.dict()->depth : 0;
}

int depth_above(Engine& engine, int below) {
  if (below >= kMaxDataDepth) {
    engine.fail(fmt::format("lists and dicts nest deeper than {} levels", kMaxDataDepth));
  }
  return below + 1;
}

int depth_above(Engine& engine, const std::vector<Value>& items) {
  int below = 0;
  for (const Value& item : items) {
    below = std::max(below, depth_of(item));
  }
  return depth_above(engine, below);
}

int depth_above(Engine& engine, const std::vector<std::pair<Value, Value>>& items) {
  int below = 0;
  for (const auto& [key, value] : items) {
    below = std::max({below, depth_of(key), depth_of(value)});
  }
  return depth_above(engine, below);
}

// Beside the elements: the object, the count of its owners, what the allocator adds.
constexpr std::size_t kOverhead = 64;

Value text_from_json(Engine& engine, const std::string& text) {
  if (first_invalid_byte(text)) {
    engine.fail("a variable holds text that is not UTF-8");
  }
  return constant_string(text);
}

Value from_json_at(Engine& engine, const Json& json, int level) {
  if (level > kMaxDataDepth) {
    engine.fail(fmt::format("a variable nests deeper than {} levels", kMaxDataDepth));
  }
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<std::int64_t>();
    case Json::value_t::number_unsigned:
      if (json.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
        engine.unsupported(fmt::format("the whole number {} of a variable", json.get<std::uint64_t>()));
      }
      return json.get<std::int64_t>();
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return text_from_json(engine, json.get_ref<const std::string&>());
    case Json::value_t::array: {
      auto list = std::make_shared<List>();
      for (const Json& one : json) {
        list->items.push_back(from_json_at(engine, one, level + 1));
      }
      list->depth = depth_above(engine, list->items);
      return ListPtr(std::move(list));
    }
    case Json::value_t::object: {
      auto dict = std::make_shared<Dict>();
      for (const auto& [key, one] : json.items()) {
        dict->items.emplace_back(text_from_json(engine, key), from_json_at(engine, one, level + 1));
      }
      dict->depth = depth_above(engine, dict->items);
      return DictPtr(std::move(dict));
    }
    default:
      return None{};
  }
}

}  // namespace

Value make_string(Engine& engine, std::string text, bool safe) {
  engine.step_bytes(text.size());
  Charge charge(engine, sizeof(String) + kOverhead + text.capacity());
  return StringPtr(std::make_shared<const String>(String{std::move(text), safe, std::move(charge)}));
}

Value make_list(Engine& engine, std::vector<Value> items, List::Flavour flavour) {
  engine.step_bytes(items.size());
  auto list = std::make_shared<List>();
  list->charge = Charge(engine, sizeof(List) + kOverhead + items.capacity() * sizeof(Value));
  list->flavour = flavour;
  list->depth = depth_above(engine, items);
  list->items = std::move(items);
  return ListPtr(std::move(list));
}

Value make_dict(Engine& engine, std::vector<std::pair<Value, Value>> items) {
  auto dict = std::make_shared<Dict>();
  dict->charge = Charge(engine, sizeof(Dict) + kOverhead + items.capacity() * sizeof(std::pair<Value, Value>));
  dict->depth = depth_above(engine, items);
  for (auto& [key, value] : items) {
    require_hashable(engine, key);
    const auto same = std::ranges::find_if(dict->items, [&](const auto& one) { return equal(engine, one.first, key); });
    if (same != dict->items.end()) {
      same->second = std::move(value);
    } else {
      dict->items.emplace_back(std::move(key), std::move(value));
    }
  }
  return DictPtr(std::move(dict));
}

Value ListBuilder::finish(List::Flavour flavour) {
  engine_.give(std::exchange(counted_, 0));
  return make_list(engine_, std::exchange(items_, {}), flavour);
}

void ListBuilder::grow() {
  const std::size_t capacity = std::max<std::size_t>(8, items_.capacity() + items_.capacity() / 2);
  const std::size_t bytes = capacity * sizeof(Value);
  engine_.take(bytes);
  items_.reserve(capacity);
  engine_.give(std::exchange(counted_, bytes));
}

Value make_undefined(Engine& engine, std::string why) {
  Charge charge(engine, sizeof(Undefined::Reason) + kOverhead + why.capacity());
  return Undefined{std::make_shared<const Undefined::Reason>(Undefined::Reason{std::move(why), std::move(charge)})};
}

Value make_function(Engine& engine, Function::Kind kind, std::string_view name, const Value& self,
                    const MacroStatement* macro) {
  Charge charge(engine, sizeof(Function) + sizeof(Value) + 2 * kOverhead);
  return FunctionPtr(std::make_shared<const Function>(
      Function{kind, std::string(name), std::make_shared<const Value>(self), macro, std::move(charge)}));
}

Value constant_string(std::string text) {
  return StringPtr(std::make_shared<const String>(String{std::move(text), false, {}}));
}

Value from_json(Engine& engine, const Json& json) {
  return from_json_at(engine, json, 1);
}

}  // namespace caravan::jinja
