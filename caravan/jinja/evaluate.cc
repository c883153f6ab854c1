// Expressions.
#include <fmt/core.h>

#include "caravan/jinja/renderer.h"

namespace caravan::jinja {

using Kind = Expression::Kind;

Value Renderer::evaluate(const Expression& expression) {
  const Engine::Level level(engine_);
  engine_.line = expression.line;
  engine_.step();
  const auto child = [&](std::size_t i) { return evaluate(*expression.children[i]); };
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.value;
    case Kind::kName:
      return look_up(expression);
    case Kind::kTuple:
      return evaluate_list(expression, List::Flavour::kTuple);
    case Kind::kList:
      return evaluate_list(expression, List::Flavour::kList);
    case Kind::kDict:
      return evaluate_dict(expression);
    case Kind::kAttribute:
      return attribute_of(engine_, child(0), expression.text);
    case Kind::kItem: {
      const Value value = child(0);
      return item_of(engine_, value, child(1));
    }
    case Kind::kSlice:
      return evaluate_slice(expression);
    case Kind::kCall:
      return evaluate_call(expression);
    case Kind::kFilter:
      return evaluate_filter(expression, child(0));
    case Kind::kTest:
      return evaluate_test(expression);
    case Kind::kNot:
      return !truth(child(0));
    case Kind::kNegative:
      return negative(engine_, child(0));
    case Kind::kPositive:
      return positive(engine_, child(0));
    case Kind::kArithmetic: {
      const Value left = child(0);
      const Value right = child(1);
      engine_.line = expression.line;
      return arithmetic(engine_, expression.op, left, right);
    }
    case Kind::kConcat:
      return evaluate_concat(expression);
    case Kind::kCompare:
      return evaluate_compare(expression);
    case Kind::kAnd: {
      Value left = child(0);
      return truth(left) ? child(1) : left;
    }
    case Kind::kOr: {
      Value left = child(0);
      return truth(left) ? left : child(1);
    }
    case Kind::kConditional:
      break;
  }
  return evaluate_conditional(expression);
}

Value Renderer::evaluate_list(const Expression& expression, List::Flavour flavour) {
  ListBuilder list(engine_);
  for (const ExpressionPtr& one : expression.children) {
    list.push(evaluate(*one));
  }
  return list.finish(flavour);
}

Value Renderer::evaluate_dict(const Expression& expression) {
  std::vector<std::pair<Value, Value>> items;
  for (std::size_t i = 0; i + 1 < expression.children.size(); i += 2) {
    Value key = evaluate(*expression.children[i]);
    items.emplace_back(std::move(key), evaluate(*expression.children[i + 1]));
  }
  return make_dict(engine_, std::move(items));
}

Value Renderer::evaluate_slice(const Expression& expression) {
  const auto bound = [&](std::size_t i) {
    return expression.children[i] == nullptr ? Value(None{}) : evaluate(*expression.children[i]);
  };
  const Value value = bound(0);
  const Value start = bound(1);
  const Value stop = bound(2);
  const Value step = bound(3);
  return slice(engine_, value, start, stop, step);
}

Arguments Renderer::arguments_of(const Expression& expression) {
  Arguments arguments;
  const std::size_t named = expression.children.size() - expression.keywords.size();
  for (std::size_t i = 1; i < expression.children.size(); ++i) {
    Value value = evaluate(*expression.children[i]);
    if (i < named) {
      arguments.positional.push_back(std::move(value));
    } else {
      arguments.named.emplace_back(expression.keywords[i - named], std::move(value));
    }
  }
  return arguments;
}

Value Renderer::evaluate_call(const Expression& expression) {
  const Value callee = evaluate(*expression.children.front());
  const Arguments arguments = arguments_of(expression);
  engine_.line = expression.line;
  return call(callee, arguments);
}

Value Renderer::evaluate_filter(const Expression& expression, Value subject) {
  const Arguments arguments = arguments_of(expression);
  engine_.line = expression.line;
  return expression.filter(engine_, subject, arguments);
}

bool Renderer::evaluate_test(const Expression& expression) {
  const Value subject = evaluate(*expression.children.front());
  const Arguments arguments = arguments_of(expression);
  engine_.line = expression.line;
  return expression.test(engine_, subject, arguments);
}

Value Renderer::evaluate_concat(const Expression& expression) {
  Builder builder(engine_);
  for (const ExpressionPtr& one : expression.children) {
    append_text(engine_, builder, evaluate(*one));
  }
  return make_string(engine_, builder.take());
}

bool Renderer::evaluate_compare(const Expression& expression) {
  Value left = evaluate(*expression.children.front());
  for (std::size_t i = 0; i < expression.comparisons.size(); ++i) {
    Value right = evaluate(*expression.children[i + 1]);
    engine_.line = expression.line;
    if (!compare(engine_, expression.comparisons[i], left, right)) {
      return false;
    }
    left = std::move(right);
  }
  return true;
}

Value Renderer::evaluate_conditional(const Expression& expression) {
  if (truth(evaluate(*expression.children[1]))) {
    return evaluate(*expression.children[0]);
  }
  if (expression.children[2] != nullptr) {
    return evaluate(*expression.children[2]);
  }
  return make_undefined(engine_, "the inline if-expression evaluated to false and no else section was defined");
}

}  // namespace caravan::jinja
