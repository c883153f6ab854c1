#include "caravan/jinja/call.h"

#include <fmt/core.h>

#include <algorithm>

#include "caravan/base/text.h"
#include "caravan/jinja/python.h"

namespace caravan::jinja {

Bound::Bound(Engine& engine, std::string_view callee, const Arguments& arguments,
             std::initializer_list<const char*> names, std::size_t required)
    : engine_(engine), callee_(callee), names_(names), values_(names.size(), nullptr) {
  if (arguments.positional.size() > names_.size()) {
    engine.fail(
        fmt::format("{}() takes at most {} arguments, found {}", callee, names_.size(), arguments.positional.size()));
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    values_[i] = &arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::ranges::find(names_, std::string_view(name));
    if (found == names_.end()) {
      engine.fail(fmt::format("{}() got an unexpected keyword argument '{}'", callee, printable(name, 60)));
    }
    const Value*& place = values_[static_cast<std::size_t>(found - names_.begin())];
    if (place != nullptr) {
      engine.fail(fmt::format("{}() got multiple values for argument '{}'", callee, name));
    }
    place = &value;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr) {
      engine.fail(fmt::format("{}() needs the argument '{}'", callee, names_[i]));
    }
  }
}

bool Bound::flag(std::size_t index, bool otherwise) const {
  return values_[index] == nullptr ? otherwise : truth(*values_[index]);
}

std::int64_t Bound::integer(std::size_t index, std::int64_t otherwise) const {
  return values_[index] == nullptr
             ? otherwise
             : integer_of(engine_, *values_[index], fmt::format("argument '{}' of {}()", names_[index], callee_));
}

const std::string* Bound::text(std::size_t index) const {
  const Value* value = values_[index];
  if (value == nullptr || value->is_none()) {
    return nullptr;
  }
  if (value->text() == nullptr) {
    engine_.fail(
        fmt::format("argument '{}' of {}() must be a string, found {}", names_[index], callee_, type_name(*value)));
  }
  return value->text();
}

}  // namespace caravan::jinja
