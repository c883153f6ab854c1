#include <algorithm>

#include "caravan/jinja/renderer.h"

namespace caravan::jinja {

bool Loop::next() {
  Value item;
  if (ahead_at < ahead.items().size()) {
    item = std::exchange(ahead.items()[ahead_at++], Value());
  } else if (!pull || !pull(item)) {
    return false;
  }
  if (ahead_at == ahead.items().size()) {
    ahead.items().clear();
    ahead_at = 0;
  }
  ++index0;
  before = std::exchange(current, std::move(item));
  return true;
}

const Value* Loop::peek() {
  if (ahead_at == ahead.items().size()) {
    Value item;
    if (!pull || !pull(item)) {
      return nullptr;
    }
    ahead.push(std::move(item));
  }
  return &ahead.items()[ahead_at];
}

std::int64_t Loop::length() {
  if (!total) {
    for (Value item; pull && pull(item);) {
      ahead.push(std::move(item));
    }
    total = index0 + 1 + static_cast<std::int64_t>(ahead.items().size() - ahead_at);
  }
  return *total;
}

std::optional<Value> Loop::attribute(Engine& engine, const Value& self, std::string_view name) {
  if (name == "index0") {
    return index0;
  }
  if (name == "index") {
    return index0 + 1;
  }
  if (name == "first") {
    return index0 == 0;
  }
  if (name == "last") {
    return peek() == nullptr;
  }
  if (name == "length") {
    return length();
  }
  if (name == "revindex") {
    return length() - index0;
  }
  if (name == "revindex0") {
    return length() - index0 - 1;
  }
  if (name == "previtem") {
    return index0 == 0 ? make_undefined(engine, "there is no previous item") : before;
  }
  if (name == "nextitem") {
    const Value* next = peek();
    return next == nullptr ? make_undefined(engine, "there is no next item") : *next;
  }
  if (name == "depth" || name == "depth0") {
    return std::int64_t{name == "depth" ? 1 : 0};
  }
  if (name == "cycle" || name == "changed") {
    return make_function(engine, Function::Kind::kMethod, name, self);
  }
  return std::nullopt;
}

Value Loop::call(Engine& engine, std::string_view name, const Arguments& arguments) {
  if (name == "cycle") {
    if (arguments.positional.empty()) {
      engine.fail("no items for cycling given");
    }
    return arguments.positional[static_cast<std::size_t>(index0) % arguments.positional.size()];
  }
  Value given = make_list(engine, arguments.positional, List::Flavour::kTuple);
  const bool changed = !last_changed || !equal(engine, *last_changed, given);
  last_changed = std::move(given);
  return changed;
}

}  // namespace caravan::jinja
