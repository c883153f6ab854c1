// Arguments of calls, and what filters, tests and methods are.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "caravan/jinja/value.h"

namespace caravan::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Arguments laid against the names of parameters, as Python's calls do it.
class Bound {
 public:
  // Throws InputError, naming `callee`, when there are too many, one is given twice, is unknown, or one of the first
  // `required` is missing.
  Bound(Engine& engine, std::string_view callee, const Arguments& arguments, std::initializer_list<const char*> names,
        std::size_t required = 0);
  // The arguments are referred to: they have to live as long.
  Bound(Engine& engine, std::string_view callee, Arguments&& arguments, std::initializer_list<const char*> names,
        std::size_t required = 0) = delete;

  // What parameter `index` was given, or nullptr.
  const Value* operator[](std::size_t index) const { return values_[index]; }
  bool flag(std::size_t index, bool otherwise) const;  // by Python's truth
  std::int64_t integer(std::size_t index, std::int64_t otherwise) const;
  // Throws InputError when it is not a string; none counts as left out.
  const std::string* text(std::size_t index) const;

 private:
  Engine& engine_;
  std::string_view callee_;
  std::vector<const char*> names_;
  std::vector<const Value*> values_;
};

using Filter = Value (*)(Engine& engine, const Value& value, const Arguments& arguments);
using Test = bool (*)(Engine& engine, const Value& value, const Arguments& arguments);

// The filter or test of that name, or nullptr.
Filter find_filter(std::string_view name);
Test find_test(std::string_view name);

// What a template may ask a value for.
enum class MethodKind { kNone, kKnown, kChanging, kOutside };
MethodKind method_kind(const Value& self, std::string_view name);
Value call_method(Engine& engine, const Value& self, std::string_view name, const Arguments& arguments);

// value.name: methods first, then items.  value[key]: items first, then methods.  What is missing is undefined; throws
// InputError for what is asked of something undefined.
Value attribute_of(Engine& engine, const Value& value, const std::string& name);
Value item_of(Engine& engine, const Value& value, const Value& key);

// The functions that every template has.
bool is_global(std::string_view name);
Value call_global(Engine& engine, std::string_view name, const Arguments& arguments);
// datetime.strftime in the C locale.
Value format_time(Engine& engine, const std::tm& time, const Arguments& arguments);

}  // namespace caravan::jinja
