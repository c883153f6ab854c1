// What stands behind an operand: attributes, items, calls, filters and tests.
#include <fmt/core.h>

#include "caravan/base/text.h"
#include "caravan/jinja/expression_parser.h"

namespace caravan::jinja {

namespace {

using Kind = Expression::Kind;

Expression node(Kind kind, int line, ExpressionPtr first) {
  Expression result;
  result.kind = kind;
  result.line = line;
  result.children.push_back(std::move(first));
  return result;
}

}  // namespace

ExpressionPtr ExpressionParser::read_postfix(ExpressionPtr left) {
  while (true) {
    if (is_operator(".")) {
      left = read_attribute(std::move(left));
    } else if (is_operator("[")) {
      left = read_item(std::move(left));
    } else if (is_operator("(")) {
      left = read_call(std::move(left));
    } else {
      return left;
    }
  }
}

ExpressionPtr ExpressionParser::read_filters_and_tests(ExpressionPtr left) {
  while (true) {
    if (skip_operator("|")) {
      left = read_filter(std::move(left));
    } else if (is_word("is")) {
      left = read_test(std::move(left));
    } else if (is_operator("(")) {
      left = read_call(std::move(left));
    } else {
      return left;
    }
  }
}

ExpressionPtr ExpressionParser::read_attribute(ExpressionPtr left) {
  const int line = take().line;
  if (current().kind == Token::Kind::kInteger) {
    Expression item = node(Kind::kItem, line, std::move(left));
    item.children.push_back(read_number());
    return finish(std::move(item));
  }
  Expression attribute = node(Kind::kAttribute, line, std::move(left));
  attribute.text = expect_name();
  return finish(std::move(attribute));
}

ExpressionPtr ExpressionParser::read_item(ExpressionPtr left) {
  const int line = take().line;
  Expression result = node(Kind::kItem, line, std::move(left));
  const auto bound = [&]() -> ExpressionPtr {
    const bool none = is_operator(":") || is_operator("]") || is_operator(",");
    return none ? nullptr : read_expression();
  };
  if (is_operator("]")) {
    fail(line, "an index is missing between [ and ]");
  }
  result.children.push_back(bound());
  if (skip_operator(":")) {
    result.kind = Kind::kSlice;
    result.children.push_back(bound());
    result.children.push_back(skip_operator(":") ? bound() : nullptr);
  }
  if (is_operator(",")) {
    unsupported(line, "an index of several parts");
  }
  expect_operator("]");
  return finish(std::move(result));
}

void ExpressionParser::read_arguments(Expression& into) {
  const int line = current().line;
  expect_operator("(");
  while (!is_operator(")")) {
    if (is_operator("*") || is_operator("**")) {
      unsupported(line, "an argument after * or **");
    }
    const bool named =
        current().kind == Token::Kind::kName && ahead().kind == Token::Kind::kOperator && ahead().text == "=";
    if (named) {
      into.keywords.push_back(expect_name());
      take();
    } else if (!into.keywords.empty()) {
      fail(line, "an argument without a name stands behind one with a name");
    }
    into.children.push_back(read_expression());
    if (!is_operator(")")) {
      expect_operator(",");
    }
  }
  take();
}

ExpressionPtr ExpressionParser::read_call(ExpressionPtr left) {
  Expression call = node(Kind::kCall, current().line, std::move(left));
  read_arguments(call);
  return finish(std::move(call));
}

ExpressionPtr ExpressionParser::read_filters(bool inner) {
  ExpressionPtr result;
  while (inner || skip_operator("|")) {
    inner = false;
    result = read_filter(std::move(result));
  }
  return result;
}

ExpressionPtr ExpressionParser::read_filter(ExpressionPtr left) {
  Expression filter = node(Kind::kFilter, current().line, std::move(left));
  filter.text = expect_name();
  filter.filter = find_filter(filter.text);
  if (filter.filter == nullptr) {
    unsupported(filter.line, fmt::format("the filter \"{}\"", printable(filter.text, 60)));
  }
  if (is_operator("(")) {
    read_arguments(filter);
  }
  return finish(std::move(filter));
}

ExpressionPtr ExpressionParser::read_test(ExpressionPtr left) {
  const int line = take().line;
  const bool negated = skip_word("not");
  Expression test = node(Kind::kTest, line, std::move(left));
  test.text = expect_name();
  test.test = find_test(test.text);
  if (test.test == nullptr) {
    unsupported(line, fmt::format("the test \"{}\"", printable(test.text, 60)));
  }
  const bool word = current().kind == Token::Kind::kName && !is_word("else") && !is_word("or") && !is_word("and");
  if (is_operator("(")) {
    read_arguments(test);
  } else if (word || current().kind == Token::Kind::kString || current().kind == Token::Kind::kInteger ||
             current().kind == Token::Kind::kFloat || is_operator("[") || is_operator("{")) {
    if (is_word("is")) {
      fail(line, "tests cannot be chained with \"is\"");
    }
    test.children.push_back(read_postfix(read_primary(/*attributes=*/false)));
  }
  ExpressionPtr result = finish(std::move(test));
  if (!negated) {
    return result;
  }
  return finish(node(Kind::kNot, line, std::move(result)));
}

}  // namespace caravan::jinja
