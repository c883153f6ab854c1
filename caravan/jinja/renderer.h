// Runs a parsed template.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "caravan/jinja/ast.h"
#include "caravan/jinja/call.h"
#include "caravan/jinja/python.h"

namespace caravan::jinja {

// What a loop's body knows as "loop".
struct Loop {
  explicit Loop(Engine& engine) : ahead(engine) {}

  // loop.index and so on; nothing for a name that loops do not have.  `self` is the value that holds this loop.
  std::optional<Value> attribute(Engine& engine, const Value& self, std::string_view name);
  Value call(Engine& engine, std::string_view name, const Arguments& arguments);  // cycle, changed

  bool next();  // moves on to the next item; false at the end

  std::function<bool(Value&)> pull;   // the next item that passes the loop's condition; empty once the loop is over
  std::optional<std::int64_t> total;  // how many items there are, where that is known beforehand
  ListBuilder ahead;                  // items that were looked at before their turn
  std::size_t ahead_at = 0;
  std::int64_t index0 = -1;
  Value before;
  Value current;
  std::optional<Value> last_changed;

 private:
  const Value* peek();
  std::int64_t length();
};

class Renderer {
 public:
  // `variables` is a JSON object or null.
  Renderer(Engine& engine, const Program& program, const Json& variables, const RenderOptions& options);
  // Namespaces may hold each other.
  ~Renderer();
  Renderer(const Renderer&) = delete;
  Renderer& operator=(const Renderer&) = delete;

  std::string run();

 private:
  enum class Flow { kOn, kBreak, kContinue };

  // Variables of a block, by their number.  Those around it are seen through it.
  struct Scope {
    const Scope* parent = nullptr;
    std::vector<std::pair<int, Value>> variables;
  };

  Flow execute(const Body& body);
  Flow execute(const Statement& statement);
  Flow execute_if(const Statement& statement);
  void execute_for(const Statement& statement);
  bool pull(const Statement& statement, Cursor& cursor, const Scope& around, Value& item);
  void execute_set(const Statement& statement);
  Flow execute_scope(const Statement& statement);
  // The output of a body in a scope of its own.
  Value captured(const Body& body, Scope& scope);
  Value filtered(const Expression* filters, Value value);
  void assign(const Expression& target, const Value& value);
  void assign(int name, const Value& value);

  Value evaluate(const Expression& expression);
  Value evaluate_list(const Expression& expression, List::Flavour flavour);
  Value evaluate_dict(const Expression& expression);
  Value evaluate_slice(const Expression& expression);
  Value evaluate_call(const Expression& expression);
  Value evaluate_filter(const Expression& expression, Value subject);
  bool evaluate_test(const Expression& expression);
  Value evaluate_concat(const Expression& expression);
  bool evaluate_compare(const Expression& expression);
  Value evaluate_conditional(const Expression& expression);
  Arguments arguments_of(const Expression& expression);

  Value look_up(const Expression& name);
  Value call(const Value& callee, const Arguments& arguments);
  Value call_macro(const MacroStatement& macro, const Arguments& arguments);
  Value make_namespace(const Arguments& arguments);
  void set_attribute(Namespace& space, const std::string& name, const Value& value);

  Engine& engine_;
  const Program& program_;
  const Json& variables_;
  const RenderOptions& options_;
  std::vector<std::optional<Value>> given_;  // variables that were looked up, by number
  std::vector<NamespacePtr> namespaces_;
  Scope root_;
  Scope* scope_ = &root_;
  int loop_name_ = -1;  // the number of "loop", if the template says it
  int macros_ = 0;      // that are being called
  Builder* output_ = nullptr;
};

}  // namespace caravan::jinja
