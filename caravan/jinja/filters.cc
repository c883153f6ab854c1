// The table of filters, and those of numbers.
#include "caravan/jinja/filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "caravan/jinja/python.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

constexpr std::pair<std::string_view, Filter> kFilters[] = {{"abs", filters::absolute},
                                                            {"capitalize", filters::capitalize},
                                                            {"center", filters::center},
                                                            {"count", filters::length},
                                                            {"d", filters::otherwise},
                                                            {"default", filters::otherwise},
                                                            {"dictsort", filters::dictsort},
                                                            {"e", filters::escape},
                                                            {"escape", filters::escape},
                                                            {"first", filters::first},
                                                            {"float", filters::to_float},
                                                            {"format", filters::format},
                                                            {"indent", filters::indent},
                                                            {"int", filters::to_int},
                                                            {"items", filters::items},
                                                            {"join", filters::join},
                                                            {"last", filters::last},
                                                            {"length", filters::length},
                                                            {"list", filters::list},
                                                            {"lower", filters::lower},
                                                            {"map", filters::map},
                                                            {"max", filters::max},
                                                            {"min", filters::min},
                                                            {"reject", filters::reject},
                                                            {"rejectattr", filters::rejectattr},
                                                            {"replace", filters::replace},
                                                            {"reverse", filters::reverse},
                                                            {"round", filters::round},
                                                            {"safe", filters::safe},
                                                            {"select", filters::select},
                                                            {"selectattr", filters::selectattr},
                                                            {"sort", filters::sort},
                                                            {"string", filters::string},
                                                            {"sum", filters::sum},
                                                            {"title", filters::title},
                                                            {"tojson", filters::tojson},
                                                            {"trim", filters::trim},
                                                            {"truncate", filters::truncate},
                                                            {"unique", filters::unique},
                                                            {"upper", filters::upper}};

// Python's int() of a string in base 10, or nothing.
std::optional<std::int64_t> integer_of_text(Engine& engine, std::string_view text) {
  std::string digits(strip(text, Side::kBoth));
  if (digits.find("__") != std::string::npos || digits.starts_with('_') || digits.ends_with('_')) {
    return std::nullopt;
  }
  std::erase(digits, '_');
  const std::size_t sign = digits.starts_with('+') || digits.starts_with('-') ? 1 : 0;
  if (digits.size() == sign || digits.find_first_not_of("0123456789", sign) != std::string::npos) {
    return std::nullopt;
  }
  std::int64_t number = 0;
  const char* const begin = digits.data() + (digits.starts_with('+') ? 1 : 0);
  if (std::from_chars(begin, digits.data() + digits.size(), number).ec != std::errc{}) {
    engine.unsupported("a whole number beyond 64 bits");
  }
  return number;
}

std::optional<std::int64_t> truncated(Engine& engine, double number) {
  if (!std::isfinite(number)) {
    return std::nullopt;
  }
  if (std::abs(number) >= 9.2e18) {
    engine.unsupported("a whole number beyond 64 bits");
  }
  return static_cast<std::int64_t>(number);
}

}  // namespace

Filter find_filter(std::string_view name) {
  const auto* found = std::ranges::find(kFilters, name, &std::pair<std::string_view, Filter>::first);
  return found == std::end(kFilters) ? nullptr : found->second;
}

namespace filters {

Value absolute(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "abs", arguments, {});
  if (const double* number = value.as<double>()) {
    return std::abs(*number);
  }
  const std::int64_t number = integer_of(engine, value, "the argument of abs()");
  return number < 0 ? negative(engine, number) : Value(number);
}

Value otherwise(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "default", arguments, {"default_value", "boolean"});
  if (value.is_undefined() || (bound.flag(1, false) && !truth(value))) {
    return bound[0] != nullptr ? *bound[0] : constant_string("");
  }
  return value;
}

Value to_float(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "float", arguments, {"default"});
  if (const Undefined* undefined = value.as<Undefined>()) {
    fail_undefined(engine, *undefined);
  }
  const std::optional<double> number = value.text() != nullptr ? parse_float(*value.text()) : number_of(value);
  return number ? Value(*number) : bound[0] != nullptr ? *bound[0] : Value(0.0);
}

Value to_int(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "int", arguments, {"default", "base"});
  if (bound.integer(1, 10) != 10) {
    engine.unsupported("int() with another base than 10");
  }
  if (const Undefined* undefined = value.as<Undefined>()) {
    fail_undefined(engine, *undefined);
  }
  std::optional<std::int64_t> number;
  if (value.text() != nullptr) {
    number = integer_of_text(engine, *value.text());
  } else if (value.is<bool>() || value.is<std::int64_t>()) {
    number = integer_of(engine, value, "int()");
  }
  if (!number) {
    const std::optional<double> fraction = value.text() != nullptr ? parse_float(*value.text()) : number_of(value);
    number = fraction ? truncated(engine, *fraction) : std::nullopt;
  }
  return number ? Value(*number) : bound[0] != nullptr ? *bound[0] : Value(std::int64_t{0});
}

Value round(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "round", arguments, {"precision", "method"});
  const std::int64_t precision = bound.integer(0, 0);
  const std::string method = bound.text(1) == nullptr ? "common" : *bound.text(1);
  if (method != "common" && method != "ceil" && method != "floor") {
    engine.fail("method must be common, ceil or floor");
  }
  if (precision < 0 || precision > 100) {
    engine.unsupported("rounding to fewer than 0 or more than 100 places");
  }
  const std::optional<double> number = number_of(value);
  if (!number) {
    engine.fail(fmt::format("type {} doesn't define __round__ method", type_name(value)));
  }
  if (method == "common") {
    if (!value.is<double>()) {
      return integer_of(engine, value, "round()");
    }
    // The exact value to so many places, halves to even: what dtoa gives CPython.
    return std::isfinite(*number) ? std::stod(fmt::format("{:.{}f}", *number, precision)) : *number;
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return (method == "ceil" ? std::ceil(*number * scale) : std::floor(*number * scale)) / scale;
}

}  // namespace filters

}  // namespace caravan::jinja
