// Arithmetic, slices and printf's conversions.
#include <fmt/core.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "caravan/jinja/python.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

constexpr std::string_view kSigns[] = {"+", "-", "*", "/", "//", "%", "**"};

std::string_view sign_of(Operator op) {
  return kSigns[static_cast<std::size_t>(op)];
}

[[noreturn]] void fail_operands(Engine& engine, Operator op, const Value& a, const Value& b) {
  for (const Value* one : {&a, &b}) {
    if (const Undefined* undefined = one->as<Undefined>()) {
      fail_undefined(engine, *undefined);
    }
  }
  engine.fail(
      fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", sign_of(op), type_name(a), type_name(b)));
}

[[noreturn]] void fail_width(Engine& engine) {
  engine.unsupported("a whole number beyond 64 bits");
}

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  const std::int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Value integer_power(Engine& engine, std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) {
      engine.fail("0.0 cannot be raised to a negative power");
    }
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  std::int64_t result = 1;
  // Beyond 0, 1 and -1 the result outgrows 64 bits within 63 steps.
  for (; exponent > 0; --exponent) {
    if (base == 0 || base == 1 || base == -1) {
      return base == -1 && exponent % 2 == 0 ? std::int64_t{1} : base;
    }
    if (__builtin_mul_overflow(result, base, &result)) {
      fail_width(engine);
    }
  }
  return result;
}

Value integers(Engine& engine, Operator op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  const auto checked = [&](bool overflow) -> Value {
    if (overflow) {
      fail_width(engine);
    }
    return result;
  };
  switch (op) {
    case Operator::kAdd:
      return checked(__builtin_add_overflow(a, b, &result));
    case Operator::kSubtract:
      return checked(__builtin_sub_overflow(a, b, &result));
    case Operator::kMultiply:
      return checked(__builtin_mul_overflow(a, b, &result));
    case Operator::kPower:
      return integer_power(engine, a, b);
    default:
      break;
  }
  if (b == 0) {
    engine.fail("division by zero");
  }
  if (op == Operator::kDivide) {
    return static_cast<double>(a) / static_cast<double>(b);
  }
  if (b == -1) {  // the smallest number has no negative
    return op == Operator::kModulo ? Value(std::int64_t{0})
                                   : checked(__builtin_sub_overflow(std::int64_t{0}, a, &result));
  }
  const std::int64_t quotient = floor_divide(a, b);
  return op == Operator::kModulo ? a - quotient * b : quotient;
}

Value float_power(Engine& engine, double a, double b) {
  if (a < 0 && b != std::floor(b)) {
    engine.unsupported("a complex number");
  }
  if (a == 0 && b < 0) {
    engine.fail("0.0 cannot be raised to a negative power");
  }
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
    engine.fail("Numerical result out of range");
  }
  return result;
}

Value numbers(Engine& engine, Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return a + b;
    case Operator::kSubtract:
      return a - b;
    case Operator::kMultiply:
      return a * b;
    case Operator::kPower:
      return float_power(engine, a, b);
    default:
      break;
  }
  if (b == 0) {
    engine.fail("division by zero");
  }
  if (op == Operator::kDivide) {
    return a / b;
  }
  // CPython's float_divmod: the remainder has the divisor's sign.
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (b < 0) != (rest < 0)) {
    rest += b;
    quotient -= 1.0;
  }
  if (op == Operator::kModulo) {
    return rest != 0 ? rest : std::copysign(0.0, b);
  }
  if (quotient == 0) {
    return std::copysign(0.0, a / b);
  }
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1.0 : floored;
}

Value concatenated(Engine& engine, const Value& a, const Value& b) {
  Builder builder(engine);
  if (!a.is_safe() && !b.is_safe()) {
    builder.append(*a.text());
    builder.append(*b.text());
    return make_string(engine, builder.take());
  }
  for (const Value* one : {&a, &b}) {
    if (one->is_safe()) {
      builder.append(*one->text());
    } else {
      append_escaped_html(builder, *one->text());
    }
  }
  return make_string(engine, builder.take(), /*safe=*/true);
}

Value repeated(Engine& engine, const Value& value, const Value& count) {
  const std::int64_t times = std::max<std::int64_t>(0, integer_of(engine, count, "the number of repetitions"));
  if (const std::string* text = value.text()) {
    Builder builder(engine);
    for (std::int64_t i = 0; i < times && !text->empty(); ++i) {
      builder.append(*text);
    }
    return make_string(engine, builder.take(), value.is_safe());
  }
  ListBuilder list(engine);
  const std::vector<Value>& one = value.list()->items;
  for (std::int64_t i = 0; i < times && !one.empty(); ++i) {
    for (const Value& item : one) {
      list.push(item);
    }
  }
  return list.finish(value.list()->flavour);
}

Value joined(Engine& engine, const List& a, const List& b) {
  ListBuilder list(engine);
  for (const List* one : {&a, &b}) {
    for (const Value& item : one->items) {
      list.push(item);
    }
  }
  return list.finish(a.flavour);
}

bool is_whole(const Value& value) {
  return value.is<bool>() || value.is<std::int64_t>();
}

struct SliceRange {
  std::int64_t start = 0;
  std::int64_t stop = 0;
  std::int64_t step = 1;
};

// Python's slice.indices.
SliceRange range_of(Engine& engine, std::int64_t size, const Value& start, const Value& stop, const Value& step) {
  const auto bound = [&](const Value& value) -> std::optional<std::int64_t> {
    if (value.is_none()) {
      return std::nullopt;
    }
    return integer_of(engine, value, "a slice's bound");
  };
  SliceRange range;
  range.step = bound(step).value_or(1);
  if (range.step == 0) {
    engine.fail("slice step cannot be zero");
  }
  const std::int64_t low = range.step < 0 ? -1 : 0;
  const std::int64_t high = range.step < 0 ? size - 1 : size;
  const auto clamped = [&](std::optional<std::int64_t> value, std::int64_t otherwise) {
    if (!value) {
      return otherwise;
    }
    return std::clamp(*value < 0 ? std::max(*value, -size - 1) + size : std::min(*value, size), low, high);
  };
  range.start = clamped(bound(start), range.step < 0 ? high : low);
  range.stop = clamped(bound(stop), range.step < 0 ? low : high);
  return range;
}

// Calls take(place) for each place of the range, whatever the step.
template <typename Take>
void walk(const SliceRange& range, const Take& take) {
  for (std::int64_t at = range.start; range.step > 0 ? at < range.stop : at > range.stop;) {
    take(at);
    if (__builtin_add_overflow(at, range.step, &at)) {
      return;
    }
  }
}

Value text_slice(Engine& engine, const Value& value, const SliceRange& range) {
  const std::string& text = *value.text();
  Builder builder(engine);
  if (range.step == 1) {
    const std::size_t begin = offset_of(text, range.start);
    const std::string_view rest = std::string_view(text).substr(begin);
    builder.append(rest.substr(0, offset_of(rest, std::max<std::int64_t>(0, range.stop - range.start))));
  } else {
    std::vector<std::uint32_t> begins;
    const Charge charge(engine, (text.size() + 1) * sizeof(std::uint32_t));
    begins.reserve(text.size() + 1);
    for (std::size_t at = 0; at < text.size(); next_character(text, at)) {
      begins.push_back(static_cast<std::uint32_t>(at));
    }
    begins.push_back(static_cast<std::uint32_t>(text.size()));
    walk(range, [&](std::int64_t at) {
      const std::size_t begin = begins[static_cast<std::size_t>(at)];
      builder.append(std::string_view(text).substr(begin, begins[static_cast<std::size_t>(at) + 1] - begin));
    });
  }
  return make_string(engine, builder.take(), value.is_safe());
}

}  // namespace

Value arithmetic(Engine& engine, Operator op, const Value& a, const Value& b) {
  if (is_whole(a) && is_whole(b)) {
    return integers(engine, op, integer_of(engine, a, ""), integer_of(engine, b, ""));
  }
  if (number_of(a) && number_of(b)) {
    return numbers(engine, op, *number_of(a), *number_of(b));
  }
  if (op == Operator::kAdd) {
    if (a.is_string() && b.is_string()) {
      return concatenated(engine, a, b);
    }
    if (a.is_plain_list() && b.is_plain_list() && a.list()->flavour == b.list()->flavour) {
      return joined(engine, *a.list(), *b.list());
    }
    if ((a.is_string() || b.is_string()) && !a.is_undefined() && !b.is_undefined()) {
      engine.fail(a.is_string() ? fmt::format("can only concatenate str (not \"{}\") to str", type_name(b))
                                : fmt::format("unsupported operand type(s) for +: '{}' and 'str'", type_name(a)));
    }
  }
  if (op == Operator::kMultiply) {
    if ((a.is_string() || a.is_plain_list()) && is_whole(b)) {
      return repeated(engine, a, b);
    }
    if ((b.is_string() || b.is_plain_list()) && is_whole(a)) {
      return repeated(engine, b, a);
    }
  }
  if (op == Operator::kModulo && a.is_string() && !b.is_undefined()) {
    if (a.is_safe()) {
      engine.unsupported("% on a string marked safe");
    }
    return percent_format(engine, *a.text(), b);
  }
  fail_operands(engine, op, a, b);
}

Value negative(Engine& engine, const Value& value) {
  if (const double* number = value.as<double>()) {
    return -*number;
  }
  if (!is_whole(value)) {
    fail_operands(engine, Operator::kSubtract, value, value);
  }
  return integers(engine, Operator::kSubtract, 0, integer_of(engine, value, ""));
}

Value positive(Engine& engine, const Value& value) {
  if (value.is<double>()) {
    return value;
  }
  if (!is_whole(value)) {
    fail_operands(engine, Operator::kAdd, value, value);
  }
  return integer_of(engine, value, "");
}

Value slice(Engine& engine, const Value& value, const Value& start, const Value& stop, const Value& step) {
  if (const std::string* text = value.text()) {
    engine.step_bytes(2 * text->size());
    return text_slice(engine, value, range_of(engine, length_of(*text), start, stop, step));
  }
  const List* list = value.list();
  if (list == nullptr || list->flavour == List::Flavour::kView || list->flavour == List::Flavour::kGenerator) {
    if (const Undefined* undefined = value.as<Undefined>()) {
      fail_undefined(engine, *undefined);
    }
    engine.fail(fmt::format("'{}' object cannot be sliced", type_name(value)));
  }
  const SliceRange range = range_of(engine, static_cast<std::int64_t>(list->items.size()), start, stop, step);
  ListBuilder result(engine);
  walk(range, [&](std::int64_t at) { result.push(list->items[static_cast<std::size_t>(at)]); });
  return result.finish(list->flavour);
}

void append_escaped_html(Builder& builder, std::string_view text) {
  while (!text.empty()) {
    const std::size_t plain = std::min(text.find_first_of("&<>'\""), text.size());
    builder.append(text.substr(0, plain));
    if (plain < text.size()) {
      const char c = text[plain];
      builder.append(c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&#34;" : "&#39;");
    }
    text.remove_prefix(std::min(plain + 1, text.size()));
  }
}

}  // namespace caravan::jinja
