// A parsed template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "caravan/jinja/call.h"
#include "caravan/jinja/python.h"
#include "caravan/jinja/value.h"

namespace caravan::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct Expression {
  enum class Kind : std::uint8_t {
    kConstant,     // value
    kName,         // name
    kTuple,        // children
    kList,         // children
    kDict,         // children: key, value, key, value ...
    kAttribute,    // children[0].text
    kItem,         // children[0][children[1]]
    kSlice,        // children[0][children[1]:children[2]:children[3]]; what is left out is null
    kCall,         // children[0](the other children)
    kFilter,       // children[0] | text(the other children); the first is null in a filter block
    kTest,         // children[0] is text(the other children)
    kNot,          // children[0]
    kNegative,     // children[0]
    kPositive,     // children[0]
    kArithmetic,   // children[0] op children[1]
    kConcat,       // children, joined as text
    kCompare,      // children[0] comparisons[0] children[1] comparisons[1] ...
    kAnd,          // children[0] and children[1]
    kOr,           // children[0] or children[1]
    kConditional,  // children[0] if children[1] else children[2], which may be null
  };

  Kind kind = Kind::kConstant;
  Operator op = Operator::kAdd;
  int line = 0;
  int depth = 1;  // levels of expressions in it
  int name = -1;  // place in Program::names
  std::string text;
  Value value;
  std::vector<ExpressionPtr> children;
  std::vector<std::string> keywords;  // names of the last children of a call, filter or test
  std::vector<Comparison> comparisons;
  Filter filter = nullptr;
  Test test = nullptr;
};

struct Statement;
using Body = std::vector<Statement>;

struct Branch {
  ExpressionPtr condition;  // null: else
  Body body;
};

struct MacroStatement {
  struct Parameter {
    int name = -1;
    std::string text;
    ExpressionPtr otherwise;  // the default; null when it has none
  };
  std::string text;  // its name
  std::vector<Parameter> parameters;
  Body body;
};

struct Statement {
  enum class Kind : std::uint8_t {
    kText,      // text
    kOutput,    // value
    kIf,        // branches
    kFor,       // target, value (the iterable), filter, body, otherwise
    kSet,       // target, value
    kSetBlock,  // target, value (filters around null, or null), body
    kMacro,     // name, macro
    kScope,     // targets and values (with), body
    kFilter,    // value (filters around null), body
    kBreak,
    kContinue,
  };

  Kind kind = Kind::kText;
  int line = 0;
  int name = -1;
  std::string text;
  ExpressionPtr target;
  ExpressionPtr value;
  ExpressionPtr filter;
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> assignments;
  std::vector<Branch> branches;
  Body body;
  Body otherwise;
  std::shared_ptr<const MacroStatement> macro;
};

struct Program {
  std::string source;
  std::vector<std::string> names;  // every variable that is written or read, by the number that expressions have
  Body body;
};

}  // namespace caravan::jinja
