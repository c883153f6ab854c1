#include "caravan/jinja/expression_parser.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

using Kind = Expression::Kind;

constexpr int kMaxLevels = 150;  // of brackets, blocks and operators inside each other

Expression node(Kind kind, int line) {
  Expression result;
  result.kind = kind;
  result.line = line;
  return result;
}

std::string shown(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kEnd:
      return "the end of the template";
    case Token::Kind::kOutputEnd:
      return "}}";
    case Token::Kind::kBlockEnd:
      return "%}";
    default:
      return fmt::format("\"{}\"", printable(token.text, 60));
  }
}

}  // namespace

ExpressionParser::Level::Level(ExpressionParser& parser) : parser_(parser) {
  if (++parser_.level_ > kMaxLevels) {
    parser_.fail(parser_.current().line, fmt::format("it nests deeper than {} levels", kMaxLevels));
  }
}

void ExpressionParser::unsupported(int line, const std::string& what) const {
  throw UnsupportedError(
      fmt::format("{}, line {}: {} is outside the part of Jinja that Caravan renders", source_, line, what));
}

bool ExpressionParser::skip_operator(std::string_view sign) {
  const bool found = is_operator(sign);
  at_ += found ? 1 : 0;
  return found;
}

bool ExpressionParser::skip_word(std::string_view word) {
  const bool found = is_word(word);
  at_ += found ? 1 : 0;
  return found;
}

void ExpressionParser::expect_operator(std::string_view sign) {
  if (!skip_operator(sign)) {
    fail(current().line, fmt::format("expected \"{}\", found {}", sign, shown(current())));
  }
}

std::string ExpressionParser::expect_name() {
  return std::string(expect(Token::Kind::kName, "a name").text);
}

Token ExpressionParser::expect(Token::Kind kind, std::string_view wanted) {
  if (current().kind != kind) {
    fail(current().line, fmt::format("expected {}, found {}", wanted, shown(current())));
  }
  return take();
}

int ExpressionParser::name_number(const std::string& name) {
  const auto [found, added] = numbers_.try_emplace(name, static_cast<int>(names_.size()));
  if (added) {
    names_.push_back(name);
  }
  return found->second;
}

ExpressionPtr ExpressionParser::finish(Expression expression) const {
  for (const ExpressionPtr& child : expression.children) {
    expression.depth = std::max(expression.depth, child == nullptr ? 1 : child->depth + 1);
  }
  if (expression.depth > kMaxLevels) {
    fail(expression.line, fmt::format("an expression nests deeper than {} levels", kMaxLevels));
  }
  return std::make_unique<const Expression>(std::move(expression));
}

ExpressionPtr ExpressionParser::binary(Kind kind, int line, ExpressionPtr left, ExpressionPtr right,
                                       Operator op) const {
  Expression result = node(kind, line);
  result.op = op;
  result.children.push_back(std::move(left));
  result.children.push_back(std::move(right));
  return finish(std::move(result));
}

ExpressionPtr ExpressionParser::read_expression(bool conditional) {
  return conditional ? read_conditional() : read_or();
}

ExpressionPtr ExpressionParser::read_conditional() {
  const Level level(*this);
  ExpressionPtr left = read_or();
  while (is_word("if")) {
    Expression result = node(Kind::kConditional, take().line);
    result.children.push_back(std::move(left));
    result.children.push_back(read_or());
    result.children.push_back(skip_word("else") ? read_conditional() : nullptr);
    left = finish(std::move(result));
  }
  return left;
}

ExpressionPtr ExpressionParser::read_or() {
  ExpressionPtr left = read_and();
  while (is_word("or")) {
    const int line = take().line;
    left = binary(Kind::kOr, line, std::move(left), read_and());
  }
  return left;
}

ExpressionPtr ExpressionParser::read_and() {
  ExpressionPtr left = read_not();
  while (is_word("and")) {
    const int line = take().line;
    left = binary(Kind::kAnd, line, std::move(left), read_not());
  }
  return left;
}

ExpressionPtr ExpressionParser::read_not() {
  if (!is_word("not")) {
    return read_compare();
  }
  const Level level(*this);
  Expression result = node(Kind::kNot, take().line);
  result.children.push_back(read_not());
  return finish(std::move(result));
}

ExpressionPtr ExpressionParser::read_compare() {
  static constexpr std::pair<std::string_view, Comparison> kSigns[] = {
      {"==", Comparison::kEqual},     {"!=", Comparison::kUnequal}, {"<", Comparison::kLess},
      {"<=", Comparison::kLessEqual}, {">", Comparison::kGreater},  {">=", Comparison::kGreaterEqual}};
  Expression result = node(Kind::kCompare, current().line);
  ExpressionPtr left = read_sum();
  while (true) {
    const auto* sign = std::ranges::find_if(kSigns, [&](const auto& one) { return is_operator(one.first); });
    if (sign != std::end(kSigns)) {
      take();
      result.comparisons.push_back(sign->second);
    } else if (skip_word("in")) {
      result.comparisons.push_back(Comparison::kIn);
    } else if (is_word("not") && ahead().kind == Token::Kind::kName && ahead().text == "in") {
      take();
      take();
      result.comparisons.push_back(Comparison::kNotIn);
    } else {
      break;
    }
    if (left != nullptr) {
      result.children.push_back(std::move(left));
    }
    result.children.push_back(read_sum());
  }
  return result.comparisons.empty() ? std::move(left) : finish(std::move(result));
}

ExpressionPtr ExpressionParser::read_sum() {
  ExpressionPtr left = read_concat();
  while (is_operator("+") || is_operator("-")) {
    const Token sign = take();
    left = binary(Kind::kArithmetic, sign.line, std::move(left), read_concat(),
                  sign.text == "+" ? Operator::kAdd : Operator::kSubtract);
  }
  return left;
}

ExpressionPtr ExpressionParser::read_concat() {
  ExpressionPtr first = read_product();
  if (!is_operator("~")) {
    return first;
  }
  Expression result = node(Kind::kConcat, current().line);
  result.children.push_back(std::move(first));
  while (skip_operator("~")) {
    result.children.push_back(read_product());
  }
  return finish(std::move(result));
}

ExpressionPtr ExpressionParser::read_product() {
  static constexpr std::pair<std::string_view, Operator> kSigns[] = {
      {"*", Operator::kMultiply}, {"/", Operator::kDivide}, {"//", Operator::kFloorDivide}, {"%", Operator::kModulo}};
  ExpressionPtr left = read_power();
  while (true) {
    const auto* sign = std::ranges::find_if(kSigns, [&](const auto& one) { return is_operator(one.first); });
    if (sign == std::end(kSigns)) {
      return left;
    }
    const int line = take().line;
    left = binary(Kind::kArithmetic, line, std::move(left), read_power(), sign->second);
  }
}

ExpressionPtr ExpressionParser::read_power() {
  ExpressionPtr left = read_unary(/*filters=*/true);
  while (is_operator("**")) {
    const int line = take().line;
    left = binary(Kind::kArithmetic, line, std::move(left), read_unary(/*filters=*/true), Operator::kPower);
  }
  return left;
}

ExpressionPtr ExpressionParser::read_unary(bool filters) {
  const Level level(*this);
  ExpressionPtr result;
  if (is_operator("-") || is_operator("+")) {
    const Token sign = take();
    Expression expression = node(sign.text == "-" ? Kind::kNegative : Kind::kPositive, sign.line);
    expression.children.push_back(read_unary(/*filters=*/false));
    result = finish(std::move(expression));
  } else {
    result = read_primary(/*attributes=*/false);
  }
  result = read_postfix(std::move(result));
  return filters ? read_filters_and_tests(std::move(result)) : std::move(result);
}

ExpressionPtr ExpressionParser::read_primary(bool attributes) {
  const Token& token = current();
  switch (token.kind) {
    case Token::Kind::kName:
      return read_name(attributes);
    case Token::Kind::kString:
      return read_string();
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
      return read_number();
    default:
      break;
  }
  if (is_operator("[")) {
    return read_list();
  }
  if (is_operator("{")) {
    return read_dict();
  }
  if (!is_operator("(")) {
    fail(token.line, fmt::format("unexpected {}", shown(token)));
  }
  take();
  if (is_operator(")")) {
    Expression empty = node(Kind::kTuple, take().line);
    return finish(std::move(empty));
  }
  ExpressionPtr inner = read_tuple();
  expect_operator(")");
  return inner;
}

ExpressionPtr ExpressionParser::read_name(bool attributes) {
  const Token token = take();
  const std::string name(token.text);
  Expression result = node(Kind::kConstant, token.line);
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    result.value = name == "true" || name == "True";
  } else if (name == "none" || name == "None") {
    result.value = None{};
  } else {
    result.kind = Kind::kName;
    result.text = name;
    result.name = name_number(name);
    if (attributes && skip_operator(".")) {
      Expression attribute = node(Kind::kAttribute, token.line);
      attribute.text = expect_name();
      attribute.children.push_back(finish(std::move(result)));
      return finish(std::move(attribute));
    }
  }
  return finish(std::move(result));
}

ExpressionPtr ExpressionParser::read_number() {
  const Token token = take();
  std::string digits(token.text);
  std::erase(digits, '_');
  Expression result = node(Kind::kConstant, token.line);
  if (token.kind == Token::Kind::kFloat) {
    result.value = parse_float(digits).value_or(0.0);
  } else {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error != std::errc{}) {
      unsupported(token.line, fmt::format("the whole number {}", printable(token.text, 60)));
    }
    result.value = number;
  }
  return finish(std::move(result));
}

ExpressionPtr ExpressionParser::read_string() {
  Expression result = node(Kind::kConstant, current().line);
  std::string text;
  while (current().kind == Token::Kind::kString) {
    text += unescaped(take(), source_);
  }
  result.value = constant_string(std::move(text));
  return finish(std::move(result));
}

ExpressionPtr ExpressionParser::read_list() {
  Expression result = node(Kind::kList, take().line);
  while (!is_operator("]")) {
    if (!result.children.empty()) {
      expect_operator(",");
    }
    if (!is_operator("]")) {
      result.children.push_back(read_expression());
    }
  }
  take();
  return finish(std::move(result));
}

ExpressionPtr ExpressionParser::read_dict() {
  Expression result = node(Kind::kDict, take().line);
  while (!is_operator("}")) {
    if (!result.children.empty()) {
      expect_operator(",");
    }
    if (!is_operator("}")) {
      result.children.push_back(read_expression());
      expect_operator(":");
      result.children.push_back(read_expression());
    }
  }
  take();
  return finish(std::move(result));
}

bool ExpressionParser::ends_tuple(std::string_view until) const {
  return current().kind == Token::Kind::kOutputEnd || current().kind == Token::Kind::kBlockEnd || is_operator(")") ||
         (!until.empty() && is_word(until));
}

ExpressionPtr ExpressionParser::read_tuple(bool conditional, std::string_view until) {
  Expression tuple = node(Kind::kTuple, current().line);
  bool commas = false;
  while (true) {
    if (commas && ends_tuple(until)) {
      break;
    }
    tuple.children.push_back(read_expression(conditional));
    if (!skip_operator(",")) {
      break;
    }
    commas = true;
  }
  return commas ? finish(std::move(tuple)) : std::move(tuple.children.front());
}

ExpressionPtr ExpressionParser::read_target(bool attributes, std::string_view until) {
  const Level level(*this);
  Expression tuple = node(Kind::kTuple, current().line);
  bool commas = false;
  while (!(commas && ends_tuple(until))) {
    if (skip_operator("(")) {
      tuple.children.push_back(read_target(attributes));
      expect_operator(")");
    } else {
      tuple.children.push_back(read_primary(attributes));
      check_target(*tuple.children.back());
    }
    if (!skip_operator(",")) {
      break;
    }
    commas = true;
  }
  return commas ? finish(std::move(tuple)) : std::move(tuple.children.front());
}

void ExpressionParser::check_target(const Expression& target) const {
  if (target.kind != Kind::kName && target.kind != Kind::kAttribute && target.kind != Kind::kTuple) {
    fail(target.line, "only names can be assigned to");
  }
}

}  // namespace caravan::jinja
