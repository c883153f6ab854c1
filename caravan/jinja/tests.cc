// Tests: what may stand behind "is".
#include <fmt/core.h>

#include <algorithm>

#include "caravan/jinja/call.h"
#include "caravan/jinja/filters.h"
#include "caravan/jinja/python.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

void no_arguments(Engine& engine, const Arguments& arguments) {
  const Bound bound(engine, "test", arguments, {});
}

const Value& one_argument(Engine& engine, const Arguments& arguments, const char* name = "other") {
  return *Bound(engine, "test", arguments, {name}, 1)[0];
}

// value % by == wanted
bool divides(Engine& engine, const Value& value, const Value& by, std::int64_t wanted) {
  return equal(engine, arithmetic(engine, Operator::kModulo, value, by), wanted);
}

bool same_object(Engine& engine, const Value& a, const Value& b) {
  if (a.is_string() || b.is_string()) {
    return a.is_string() && b.is_string() && a.text() == b.text();
  }
  if (a.list() != nullptr || a.is_dict()) {
    return a.list() == b.list() && a.dict() == b.dict();
  }
  return a.is<bool>() == b.is<bool>() && a.is<double>() == b.is<double>() && equal(engine, a, b);
}

template <typename Kind>
bool is_kind(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  return value.is<Kind>();
}

template <bool kWanted>
bool is_bool(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  return value.is<bool>() && *value.as<bool>() == kWanted;
}

template <int kRest>
bool is_parity(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  return divides(engine, value, std::int64_t{2}, kRest);
}

bool is_divisible(Engine& engine, const Value& value, const Arguments& arguments) {
  return divides(engine, value, one_argument(engine, arguments, "num"), 0);
}

bool is_callable(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  return value.is<FunctionPtr>() || value.is<LoopPtr>() || value.is_undefined();
}

bool is_defined(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  return !value.is_undefined();
}

bool is_escaped(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  return value.is_safe();
}

bool is_among(Engine& engine, const Value& value, const Arguments& arguments) {
  return contains(engine, one_argument(engine, arguments, "seq"), value);
}

bool is_iterable_test(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  return is_iterable(value) || value.is<LoopPtr>();
}

bool is_sequence(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  const List* list = value.list();
  return value.is_string() || value.is_dict() || value.is_undefined() ||
         (list != nullptr && list->flavour != List::Flavour::kView && list->flavour != List::Flavour::kGenerator);
}

bool is_number(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  return number_of(value).has_value();
}

bool is_lower_text(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  return is_lower(*as_text(engine, value).text());
}

bool is_upper_text(Engine& engine, const Value& value, const Arguments& arguments) {
  no_arguments(engine, arguments);
  return is_upper(*as_text(engine, value).text());
}

bool is_same(Engine& engine, const Value& value, const Arguments& arguments) {
  return same_object(engine, value, one_argument(engine, arguments));
}

bool is_equal(Engine& engine, const Value& value, const Arguments& arguments) {
  return equal(engine, value, one_argument(engine, arguments));
}

bool is_unequal(Engine& engine, const Value& value, const Arguments& arguments) {
  return !equal(engine, value, one_argument(engine, arguments));
}

bool is_less(Engine& engine, const Value& value, const Arguments& arguments) {
  return less(engine, value, one_argument(engine, arguments));
}

bool is_greater(Engine& engine, const Value& value, const Arguments& arguments) {
  return less(engine, one_argument(engine, arguments), value, ">");
}

bool is_less_or_equal(Engine& engine, const Value& value, const Arguments& arguments) {
  return compare(engine, Comparison::kLessEqual, value, one_argument(engine, arguments));
}

bool is_greater_or_equal(Engine& engine, const Value& value, const Arguments& arguments) {
  return compare(engine, Comparison::kGreaterEqual, value, one_argument(engine, arguments));
}

constexpr std::pair<std::string_view, Test> kTests[] = {{"!=", is_unequal},
                                                        {"<", is_less},
                                                        {"<=", is_less_or_equal},
                                                        {"==", is_equal},
                                                        {">", is_greater},
                                                        {">=", is_greater_or_equal},
                                                        {"boolean", is_kind<bool>},
                                                        {"callable", is_callable},
                                                        {"defined", is_defined},
                                                        {"divisibleby", is_divisible},
                                                        {"eq", is_equal},
                                                        {"equalto", is_equal},
                                                        {"escaped", is_escaped},
                                                        {"even", is_parity<0>},
                                                        {"false", is_bool<false>},
                                                        {"float", is_kind<double>},
                                                        {"ge", is_greater_or_equal},
                                                        {"greaterthan", is_greater},
                                                        {"gt", is_greater},
                                                        {"in", is_among},
                                                        {"integer", is_kind<std::int64_t>},
                                                        {"iterable", is_iterable_test},
                                                        {"le", is_less_or_equal},
                                                        {"lessthan", is_less},
                                                        {"lower", is_lower_text},
                                                        {"lt", is_less},
                                                        {"mapping", is_kind<DictPtr>},
                                                        {"ne", is_unequal},
                                                        {"none", is_kind<None>},
                                                        {"number", is_number},
                                                        {"odd", is_parity<1>},
                                                        {"sameas", is_same},
                                                        {"sequence", is_sequence},
                                                        {"string", is_kind<StringPtr>},
                                                        {"true", is_bool<true>},
                                                        {"undefined", is_kind<Undefined>},
                                                        {"upper", is_upper_text}};

}  // namespace

Test find_test(std::string_view name) {
  const auto* found = std::ranges::find(kTests, name, &std::pair<std::string_view, Test>::first);
  return found == std::end(kTests) ? nullptr : found->second;
}

}  // namespace caravan::jinja
