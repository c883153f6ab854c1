// What Python's operators and built-in functions make of values.
//
// Whatever would raise in Python throws InputError with the line of the template; work and memory are counted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "caravan/jinja/value.h"

namespace caravan::jinja {

// "str", "NoneType", "dict": as Python's messages name them.
std::string_view type_name(const Value& value);

bool truth(const Value& value);                                                // bool()
[[noreturn]] void fail_undefined(Engine& engine, const Undefined& undefined);  // "'x' is undefined"

// str(), and repr() for what stands inside lists and dicts.  Functions, loops and generators have no text that two runs of
// Python would agree on: UnsupportedError.
void append_text(Engine& engine, Builder& builder, const Value& value);
void append_repr(Engine& engine, Builder& builder, const Value& value);
// str() as a C++ string; it is not counted any more, so put it into a value soon.
std::string text_of(Engine& engine, const Value& value);

bool equal(Engine& engine, const Value& a, const Value& b);
bool less(Engine& engine, const Value& a, const Value& b, std::string_view sign = "<");
enum class Comparison : std::uint8_t { kEqual, kUnequal, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };
bool compare(Engine& engine, Comparison how, const Value& a, const Value& b);
bool contains(Engine& engine, const Value& container, const Value& item);
void require_hashable(Engine& engine, const Value& key);
// The value of a dict's key, or nullptr.
const Value* find_item(Engine& engine, const Dict& dict, const Value& key);
const Value* find_item(Engine& engine, const Dict& dict, std::string_view key);

// len(), or nothing for what has none.
std::optional<std::int64_t> length(Engine& engine, const Value& value);
bool is_iterable(const Value& value);

// iter() and next().  A generator is empty afterwards.
class Cursor {
 public:
  Cursor(Engine& engine, Value iterable);
  bool next(Value& item);
  // How many items are left, where Python's len() would tell.
  std::optional<std::int64_t> length() const;

 private:
  Engine& engine_;
  Value iterable_;
  std::size_t at_ = 0;  // byte of a string, place of a list or dict
};
Value list_of(Engine& engine, const Value& iterable);  // list(): a new one

// A whole number, bool included, or a failure: "WHAT must be a whole number, found str".
std::int64_t integer_of(Engine& engine, const Value& value, std::string_view what);
std::optional<double> number_of(const Value& value);  // int, float or bool

enum class Operator : std::uint8_t { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
Value arithmetic(Engine& engine, Operator op, const Value& a, const Value& b);
Value negative(Engine& engine, const Value& value);
Value positive(Engine& engine, const Value& value);

// text % values: printf's conversions with flags, width and precision.
Value percent_format(Engine& engine, std::string_view format, const Value& values);
void append_escaped_html(Builder& builder, std::string_view text);  // markupsafe.escape

// value[start:stop:step]; none: left out.
Value slice(Engine& engine, const Value& value, const Value& start, const Value& stop, const Value& step);

// json.dumps.  ensure_ascii, indent, separators and sort_keys as there; `indent` without value: on one line.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent = {};
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
void append_json(Engine& engine, Builder& builder, const Value& value, const JsonStyle& style);

}  // namespace caravan::jinja
