// The values of a template: Python's, as far as templates see them.
//
// Values are shared and do not change, but for namespaces, the position of a loop, and generators, which can be read once.
// What a template makes is counted against its limits; the variables it is given and its constants are not.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "caravan/jinja/engine.h"

namespace caravan::jinja {

struct MacroStatement;
class Value;

struct Undefined {
  struct Reason {
    std::string text;  // "'x' is undefined"
    Charge charge;
  };
  std::shared_ptr<const Reason> why;  // may be null
};
struct None {};

struct String {
  std::string text;   // UTF-8
  bool safe = false;  // passed through the filter "safe": what is added to it is escaped
  Charge charge;
};

struct List {
  enum class Flavour : std::uint8_t { kList, kTuple, kRange, kView, kGenerator };
  Flavour flavour = Flavour::kList;
  bool consumed = false;  // of a generator
  int depth = 1;          // levels of lists and dicts in it
  std::vector<Value> items;
  Charge charge;
};

struct Dict {
  int depth = 1;
  std::vector<std::pair<Value, Value>> items;  // in the order of insertion, no key twice
  Charge charge;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  std::vector<Charge> charges;
};

struct Loop;  // renderer.h

struct Function {
  enum class Kind : std::uint8_t { kMethod, kGlobal, kMacro };
  Kind kind = Kind::kGlobal;
  std::string name;
  std::shared_ptr<const Value> self;      // of a method
  const MacroStatement* macro = nullptr;  // of a macro
  Charge charge;
};

using StringPtr = std::shared_ptr<const String>;
using ListPtr = std::shared_ptr<List>;
using DictPtr = std::shared_ptr<const Dict>;
using NamespacePtr = std::shared_ptr<Namespace>;
using LoopPtr = std::shared_ptr<Loop>;
using FunctionPtr = std::shared_ptr<const Function>;

class Value {
 public:
  Value() = default;  // undefined
  Value(None none) : data_(none) {}
  Value(bool value) : data_(value) {}
  Value(std::int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(Undefined value) : data_(std::move(value)) {}
  Value(StringPtr value) : data_(std::move(value)) {}
  Value(ListPtr value) : data_(std::move(value)) {}
  Value(DictPtr value) : data_(std::move(value)) {}
  Value(NamespacePtr value) : data_(std::move(value)) {}
  Value(LoopPtr value) : data_(std::move(value)) {}
  Value(FunctionPtr value) : data_(std::move(value)) {}
  template <typename Other>
  Value(Other*) = delete;  // a pointer would become a bool

  template <typename Kind>
  bool is() const {
    return std::holds_alternative<Kind>(data_);
  }
  // The content, or nullptr when it is of another kind.
  template <typename Kind>
  const Kind* as() const {
    return std::get_if<Kind>(&data_);
  }

  bool is_undefined() const { return is<Undefined>(); }
  bool is_none() const { return is<None>(); }
  bool is_string() const { return is<StringPtr>(); }
  bool is_dict() const { return is<DictPtr>(); }
  const std::string* text() const { return is_string() ? &std::get<StringPtr>(data_)->text : nullptr; }
  bool is_safe() const { return is_string() && std::get<StringPtr>(data_)->safe; }
  const Dict* dict() const { return is_dict() ? std::get<DictPtr>(data_).get() : nullptr; }
  List* list() const { return is<ListPtr>() ? std::get<ListPtr>(data_).get() : nullptr; }
  // A list or tuple.
  bool is_plain_list() const {
    return list() != nullptr && (list()->flavour == List::Flavour::kList || list()->flavour == List::Flavour::kTuple);
  }

 private:
  std::variant<Undefined, None, bool, std::int64_t, double, StringPtr, ListPtr, DictPtr, NamespacePtr, LoopPtr,
               FunctionPtr>
      data_;
};

// Values that are counted.  Lists and dicts throw FormatError when they nest too deeply.
Value make_string(Engine& engine, std::string text, bool safe = false);
Value make_list(Engine& engine, std::vector<Value> items, List::Flavour flavour = List::Flavour::kList);
// Of equal keys the last value stays, at the first one's place.
Value make_dict(Engine& engine, std::vector<std::pair<Value, Value>> items);
Value make_undefined(Engine& engine, std::string why);
Value make_function(Engine& engine, Function::Kind kind, std::string_view name, const Value& self = {},
                    const MacroStatement* macro = nullptr);

// A list that grows under the limits.
class ListBuilder {
 public:
  explicit ListBuilder(Engine& engine) : engine_(engine) {}
  ~ListBuilder() { engine_.give(counted_); }
  ListBuilder(const ListBuilder&) = delete;
  ListBuilder& operator=(const ListBuilder&) = delete;

  void push(Value item) {
    engine_.step();
    if (items_.size() == items_.capacity()) {
      grow();
    }
    items_.push_back(std::move(item));
  }
  std::vector<Value>& items() { return items_; }
  Value finish(List::Flavour flavour = List::Flavour::kList);

 private:
  void grow();

  Engine& engine_;
  std::vector<Value> items_;
  std::size_t counted_ = 0;
};

// Values that are not counted: constants and variables.
Value constant_string(std::string text);
// Throws UnsupportedError for a number beyond 64 bits, FormatError for text that is not UTF-8 or nests too deeply.
Value from_json(Engine& engine, const Json& json);

}  // namespace caravan::jinja
