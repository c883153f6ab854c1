#include "caravan/jinja/renderer.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "caravan/base/text.h"

namespace caravan::jinja {

namespace {

// Sets a variable for as long as the object lives.
template <typename Type>
class Hold {
 public:
  Hold(Type& place, Type value) : place_(place), former_(std::exchange(place, std::move(value))) {}
  ~Hold() { place_ = std::move(former_); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  Type& place_;
  Type former_;
};

}  // namespace

Renderer::Renderer(Engine& engine, const Program& program, const Json& variables, const RenderOptions& options)
    : engine_(engine), program_(program), variables_(variables), options_(options), given_(program.names.size()) {
  const auto loop = std::ranges::find(program.names, "loop");
  loop_name_ = loop == program.names.end() ? -1 : static_cast<int>(loop - program.names.begin());
}

Renderer::~Renderer() {
  for (const NamespacePtr& space : namespaces_) {
    space->attributes.clear();
  }
}

std::string Renderer::run() {
  Builder output(engine_);
  output_ = &output;
  execute(program_.body);
  return output.take();
}

Renderer::Flow Renderer::execute(const Body& body) {
  for (const Statement& statement : body) {
    const Flow flow = execute(statement);
    if (flow != Flow::kOn) {
      return flow;
    }
  }
  return Flow::kOn;
}

Renderer::Flow Renderer::execute(const Statement& statement) {
  const Engine::Level level(engine_);
  engine_.line = statement.line;
  engine_.step();
  switch (statement.kind) {
    case Statement::Kind::kText:
      output_->append(statement.text);
      break;
    case Statement::Kind::kOutput:
      append_text(engine_, *output_, evaluate(*statement.value));
      break;
    case Statement::Kind::kIf:
      return execute_if(statement);
    case Statement::Kind::kFor:
      execute_for(statement);
      break;
    case Statement::Kind::kSet:
      assign(*statement.target, evaluate(*statement.value));
      break;
    case Statement::Kind::kSetBlock: {
      Scope inner{scope_, {}};
      assign(*statement.target, filtered(statement.value.get(), captured(statement.body, inner)));
      break;
    }
    case Statement::Kind::kFilter: {
      Scope inner{scope_, {}};
      append_text(engine_, *output_, filtered(statement.value.get(), captured(statement.body, inner)));
      break;
    }
    case Statement::Kind::kMacro:
      assign(statement.name,
             make_function(engine_, Function::Kind::kMacro, statement.macro->text, {}, statement.macro.get()));
      break;
    case Statement::Kind::kScope:
      return execute_scope(statement);
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

Renderer::Flow Renderer::execute_if(const Statement& statement) {
  for (const Branch& branch : statement.branches) {
    if (branch.condition == nullptr || truth(evaluate(*branch.condition))) {
      return execute(branch.body);
    }
  }
  return Flow::kOn;
}

// The next item that the loop's condition lets through.
bool Renderer::pull(const Statement& statement, Cursor& cursor, const Scope& around, Value& item) {
  while (cursor.next(item)) {
    if (statement.filter == nullptr) {
      return true;
    }
    Scope inner{&around, {}};
    const Hold<Scope*> hold(scope_, &inner);
    assign(*statement.target, item);
    if (truth(evaluate(*statement.filter))) {
      return true;
    }
  }
  return false;
}

void Renderer::execute_for(const Statement& statement) {
  Cursor cursor(engine_, evaluate(*statement.value));
  const auto loop = std::make_shared<Loop>(engine_);
  if (statement.filter == nullptr) {
    loop->total = cursor.length();
  }
  Scope& around = *scope_;
  loop->pull = [&](Value& item) { return pull(statement, cursor, around, item); };
  // A loop that outlives its end, in a namespace, must not reach for what is gone.
  struct End {
    Loop& loop;
    ~End() { loop.pull = nullptr; }
  } const end{*loop};
  Scope inner{&around, {}};
  const Hold<Scope*> hold(scope_, &inner);
  while (loop->next()) {
    engine_.step();
    inner.variables.clear();
    if (loop_name_ >= 0) {
      inner.variables.emplace_back(loop_name_, Value(loop));
    }
    assign(*statement.target, loop->current);
    if (execute(statement.body) == Flow::kBreak) {
      return;
    }
  }
  if (loop->index0 < 0) {
    inner.variables.clear();
    execute(statement.otherwise);
  }
}

Renderer::Flow Renderer::execute_scope(const Statement& statement) {
  Scope inner{scope_, {}};
  std::vector<Value> values;
  for (const auto& [target, value] : statement.assignments) {
    values.push_back(evaluate(*value));
  }
  const Hold<Scope*> hold(scope_, &inner);
  for (std::size_t i = 0; i < values.size(); ++i) {
    assign(*statement.assignments[i].first, values[i]);
  }
  return execute(statement.body);
}

Value Renderer::captured(const Body& body, Scope& scope) {
  Builder text(engine_);
  {
    const Hold<Builder*> output(output_, &text);
    const Hold<Scope*> hold(scope_, &scope);
    execute(body);
  }
  return make_string(engine_, text.take());
}

// `filters` is a chain of filters around nothing, or null.
Value Renderer::filtered(const Expression* filters, Value value) {
  if (filters == nullptr) {
    return value;
  }
  const Engine::Level level(engine_);
  return evaluate_filter(*filters, filtered(filters->children.front().get(), std::move(value)));
}

void Renderer::assign(const Expression& target, const Value& value) {
  engine_.step();
  if (target.kind == Expression::Kind::kName) {
    assign(target.name, value);
    return;
  }
  if (target.kind == Expression::Kind::kAttribute) {
    const Value owner = look_up(*target.children.front());
    const auto* space = owner.as<NamespacePtr>();
    if (space == nullptr) {
      engine_.fail("cannot assign attribute on non-namespace object");
    }
    set_attribute(**space, target.text, value);
    return;
  }
  const Value items = list_of(engine_, value);
  const std::size_t found = items.list()->items.size();
  const std::size_t expected = target.children.size();
  if (found != expected) {
    engine_.fail(found < expected ? fmt::format("not enough values to unpack (expected {}, got {})", expected, found)
                                  : fmt::format("too many values to unpack (expected {})", expected));
  }
  for (std::size_t i = 0; i < expected; ++i) {
    assign(*target.children[i], items.list()->items[i]);
  }
}

void Renderer::assign(int name, const Value& value) {
  engine_.step_bytes(scope_->variables.size() * 8);
  for (auto& [number, place] : scope_->variables) {
    if (number == name) {
      place = value;
      return;
    }
  }
  scope_->variables.emplace_back(name, value);
}

Value Renderer::look_up(const Expression& name) {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    engine_.step_bytes(scope->variables.size() * 8);
    for (const auto& [number, value] : scope->variables) {
      if (number == name.name) {
        return value;
      }
    }
  }
  std::optional<Value>& given = given_[static_cast<std::size_t>(name.name)];
  if (given) {
    return *given;
  }
  if (const auto found = variables_.find(name.text); found != variables_.end()) {
    given = from_json(engine_, *found);
  } else if (is_global(name.text) && (name.text != "strftime_now" || options_.now)) {
    given = make_function(engine_, Function::Kind::kGlobal, name.text);
  } else {
    static constexpr std::string_view kOutside[] = {"lipsum", "cycler", "joiner"};
    static constexpr std::string_view kOfMacros[] = {"varargs", "kwargs", "caller"};
    if (std::ranges::find(kOutside, name.text) != std::end(kOutside) ||
        (macros_ > 0 && std::ranges::find(kOfMacros, name.text) != std::end(kOfMacros))) {
      engine_.unsupported(fmt::format("\"{}\"", name.text));
    }
    given = make_undefined(engine_, fmt::format("'{}' is undefined", printable(name.text, 60)));
  }
  return *given;
}

Value Renderer::call(const Value& callee, const Arguments& arguments) {
  if (const Undefined* undefined = callee.as<Undefined>()) {
    fail_undefined(engine_, *undefined);
  }
  const auto* function = callee.as<FunctionPtr>();
  if (function == nullptr) {
    engine_.fail(fmt::format("'{}' object is not callable", type_name(callee)));
  }
  const Function& what = **function;
  switch (what.kind) {
    case Function::Kind::kMethod:
      return call_method(engine_, *what.self, what.name, arguments);
    case Function::Kind::kMacro:
      return call_macro(*what.macro, arguments);
    case Function::Kind::kGlobal:
      break;
  }
  if (what.name == "namespace") {
    return make_namespace(arguments);
  }
  return what.name == "strftime_now" ? format_time(engine_, *options_.now, arguments)
                                     : call_global(engine_, what.name, arguments);
}

Value Renderer::call_macro(const MacroStatement& macro, const Arguments& arguments) {
  if (arguments.positional.size() > macro.parameters.size()) {
    engine_.fail(fmt::format("macro '{}' takes not more than {} argument(s)", macro.text, macro.parameters.size()));
  }
  const int line = engine_.line;
  const Hold<int> count(macros_, macros_ + 1);
  Scope inner{&root_, {}};
  std::vector<std::optional<Value>> given(macro.parameters.size());
  std::ranges::copy(arguments.positional, given.begin());
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::ranges::find(macro.parameters, name, &MacroStatement::Parameter::text);
    if (found == macro.parameters.end() || given[static_cast<std::size_t>(found - macro.parameters.begin())]) {
      engine_.fail(fmt::format("macro '{}' takes no keyword argument '{}'", macro.text, printable(name, 60)));
    }
    given[static_cast<std::size_t>(found - macro.parameters.begin())] = value;
  }
  {
    const Hold<Scope*> hold(scope_, &inner);
    for (std::size_t i = 0; i < given.size(); ++i) {
      const MacroStatement::Parameter& parameter = macro.parameters[i];
      assign(parameter.name,
             given[i] ? *given[i]
             : parameter.otherwise
                 ? evaluate(*parameter.otherwise)
                 : make_undefined(engine_, fmt::format("parameter '{}' was not provided", parameter.text)));
    }
  }
  Value text = captured(macro.body, inner);
  engine_.line = line;
  return text;
}

Value Renderer::make_namespace(const Arguments& arguments) {
  const auto space = std::make_shared<Namespace>();
  space->charges.emplace_back(engine_, sizeof(Namespace) + sizeof(NamespacePtr) + 64);
  namespaces_.push_back(space);
  if (arguments.positional.size() > 1 || (arguments.positional.size() == 1 && !arguments.positional[0].is_dict())) {
    engine_.unsupported("a namespace() of anything but one dict and named values");
  }
  if (!arguments.positional.empty()) {
    for (const auto& [name, value] : arguments.positional[0].dict()->items) {
      if (!name.is_string()) {
        engine_.unsupported("a namespace() of a dict with other keys than strings");
      }
      set_attribute(*space, *name.text(), value);
    }
  }
  for (const auto& [name, value] : arguments.named) {
    set_attribute(*space, name, value);
  }
  return NamespacePtr(space);
}

void Renderer::set_attribute(Namespace& space, const std::string& name, const Value& value) {
  engine_.step_bytes(space.attributes.size() * 8);
  if (name.starts_with('_')) {  // transformers' rule
    engine_.fail(fmt::format("chat templates cannot store underscore-prefixed attributes on a namespace, but got '{}'",
                             printable(name, 60)));
  }
  const auto found = std::ranges::find(space.attributes, name, &std::pair<std::string, Value>::first);
  if (found != space.attributes.end()) {
    found->second = value;
    return;
  }
  space.charges.emplace_back(engine_, sizeof(Charge) + sizeof(std::pair<std::string, Value>) + name.size());
  space.attributes.emplace_back(name, value);
}

}  // namespace caravan::jinja
