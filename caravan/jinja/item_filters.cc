// Filters of lists and dicts.
#include <fmt/core.h>

#include <algorithm>

#include "caravan/base/text.h"
#include "caravan/jinja/filters.h"
#include "caravan/jinja/python.h"
#include "caravan/jinja/text.h"

namespace caravan::jinja {

namespace {

// What items are compared by: an attribute, in lower case unless told otherwise.
class Key {
 public:
  Key(Engine& engine, bool case_sensitive, const Value* attribute)
      : engine_(engine),
        case_sensitive_(case_sensitive),
        attribute_(attribute == nullptr || attribute->is_none() ? nullptr : attribute) {}

  Value of(const Value& item) const {
    return folded(attribute_ == nullptr ? item : path_of(engine_, item, *attribute_));
  }

  // sort() takes several attributes with commas between them.
  Value all_of(const Value& item) const {
    if (attribute_ == nullptr || attribute_->text() == nullptr || attribute_->text()->find(',') == std::string::npos) {
      return of(item);
    }
    ListBuilder keys(engine_);
    split(*attribute_->text(), ",", -1, [&](std::string_view path) {
      keys.push(folded(path_of(engine_, item, make_string(engine_, std::string(path)))));
    });
    return keys.finish();
  }

 private:
  Value folded(const Value& value) const {
    return case_sensitive_ || !value.is_string() ? value : call_method(engine_, value, "lower", {});
  }

  Engine& engine_;
  bool case_sensitive_;
  const Value* attribute_;
};

Value sorted(Engine& engine, const Value& value, bool reverse, const std::function<Value(const Value&)>& key) {
  std::vector<std::pair<Value, Value>> items;  // key, item
  Cursor cursor(engine, value);
  const std::size_t count = static_cast<std::size_t>(cursor.length().value_or(0));
  const Charge room(engine, 2 * count * sizeof(items[0]));
  for (Value item; cursor.next(item);) {
    items.emplace_back(key(item), item);
  }
  std::ranges::stable_sort(items, [&](const auto& a, const auto& b) {
    return reverse ? less(engine, b.first, a.first) : less(engine, a.first, b.first);
  });
  ListBuilder list(engine);
  for (auto& [ignored, item] : items) {
    list.push(std::move(item));
  }
  return list.finish();
}

Value extreme(Engine& engine, const Value& value, const Arguments& arguments, bool largest) {
  const Bound bound(engine, largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const Key key(engine, bound.flag(0, false), bound[1]);
  Cursor cursor(engine, value);
  Value best;
  if (!cursor.next(best)) {
    return make_undefined(engine, "No aggregated item, sequence was empty.");
  }
  Value best_key = key.of(best);
  for (Value item; cursor.next(item);) {
    Value one = key.of(item);
    if (largest ? less(engine, best_key, one, ">") : less(engine, one, best_key)) {
      best = item;
      best_key = std::move(one);
    }
  }
  return best;
}

// select, reject and the two of attributes: keeps the items for which the test's answer is `wanted`.
Value chosen(Engine& engine, const Value& value, const Arguments& arguments, bool wanted, bool by_attribute) {
  const std::size_t own = by_attribute ? 1 : 0;
  if (arguments.positional.size() < own) {
    engine.fail("Missing parameter for attribute name");
  }
  ListBuilder list(engine);
  if (!truth(value)) {
    return list.finish(List::Flavour::kGenerator);
  }
  Test test = nullptr;
  Arguments rest{{}, arguments.named};
  if (arguments.positional.size() > own) {
    const std::string* name = arguments.positional[own].text();
    test = name == nullptr ? nullptr : find_test(*name);
    if (test == nullptr) {
      engine.unsupported(fmt::format("the test \"{}\"", name == nullptr ? "?" : printable(*name, 60)));
    }
    rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(own) + 1,
                           arguments.positional.end());
  }
  Cursor cursor(engine, value);
  for (Value item; cursor.next(item);) {
    const Value subject = by_attribute ? path_of(engine, item, arguments.positional[0]) : item;
    if ((test == nullptr ? truth(subject) : test(engine, subject, rest)) == wanted) {
      list.push(item);
    }
  }
  return list.finish(List::Flavour::kGenerator);
}

}  // namespace

Value path_of(Engine& engine, const Value& value, const Value& path, const Value* otherwise) {
  const auto step = [&](const Value& from, const Value& key) {
    Value found = item_of(engine, from, key);
    return found.is_undefined() && otherwise != nullptr ? *otherwise : found;
  };
  if (path.text() == nullptr) {
    return step(value, path);
  }
  Value result = value;
  split(*path.text(), ".", -1, [&](std::string_view part) {
    constexpr std::size_t kMostDigits = 9;
    const bool number = all_decimal(part) && part.size() <= kMostDigits;
    result = step(result,
                  number ? Value(std::int64_t{std::stoi(std::string(part))}) : make_string(engine, std::string(part)));
  });
  return result;
}

namespace filters {

Value dictsort(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.text(1) == nullptr ? "key" : *bound.text(1);
  if (by != "key" && by != "value") {
    engine.fail("You can only sort by either \"key\" or \"value\"");
  }
  if (!value.is_dict()) {
    engine.fail(fmt::format("dictsort() wants a dict, found {}", type_name(value)));
  }
  const Value place = std::int64_t{by == "key" ? 0 : 1};
  const Key key(engine, bound.flag(0, false), &place);
  return sorted(engine, call_method(engine, value, "items", {}), bound.flag(2, false),
                [&](const Value& item) { return key.of(item); });
}

Value first(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "first", arguments, {});
  Cursor cursor(engine, value);
  Value item;
  return cursor.next(item) ? item : make_undefined(engine, "No first item, sequence was empty.");
}

Value items(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "items", arguments, {});
  if (!value.is_undefined() && !value.is_dict()) {
    engine.fail("Can only get item pairs from a mapping.");
  }
  ListBuilder list(engine);
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, one] : dict->items) {
      list.push(make_list(engine, {key, one}, List::Flavour::kTuple));
    }
  }
  return list.finish(List::Flavour::kGenerator);
}

Value join(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "join", arguments, {"d", "attribute"});
  const Value between = bound[0] == nullptr ? constant_string("") : as_text(engine, *bound[0]);
  const Value* attribute = bound[1] == nullptr || bound[1]->is_none() ? nullptr : bound[1];
  Builder builder(engine);
  Cursor cursor(engine, value);
  bool is_first = true;
  for (Value item; cursor.next(item); is_first = false) {
    builder.append(is_first ? "" : *between.text());
    append_text(engine, builder, attribute == nullptr ? item : path_of(engine, item, *attribute));
  }
  return make_string(engine, builder.take());
}

Value last(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "last", arguments, {});
  if (value.list() != nullptr && value.list()->flavour == List::Flavour::kGenerator) {
    engine.fail("'generator' object is not reversible");
  }
  Cursor cursor(engine, value);
  Value item = make_undefined(engine, "No last item, sequence was empty.");
  for (Value one; cursor.next(one);) {
    item = one;
  }
  return item;
}

Value length(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "length", arguments, {});
  const std::optional<std::int64_t> found = jinja::length(engine, value);
  if (!found) {
    engine.fail(fmt::format("object of type '{}' has no len()", type_name(value)));
  }
  return *found;
}

Value list(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "list", arguments, {});
  return list_of(engine, value);
}

Value map(Engine& engine, const Value& value, const Arguments& arguments) {
  ListBuilder list(engine);
  if (!truth(value)) {
    return list.finish(List::Flavour::kGenerator);
  }
  Cursor cursor(engine, value);
  if (arguments.positional.empty()) {
    const Bound bound(engine, "map", arguments, {"attribute", "default"}, 1);
    const Value* otherwise = bound[1] == nullptr || bound[1]->is_none() ? nullptr : bound[1];
    for (Value item; cursor.next(item);) {
      list.push(path_of(engine, item, *bound[0], otherwise));
    }
    return list.finish(List::Flavour::kGenerator);
  }
  const std::string* name = arguments.positional[0].text();
  const Filter filter = name == nullptr ? nullptr : find_filter(*name);
  if (filter == nullptr) {
    engine.unsupported(fmt::format("the filter \"{}\"", name == nullptr ? "?" : printable(*name, 60)));
  }
  const Engine::Level level(engine);  // map('map', 'map', ...)
  const Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()}, arguments.named};
  for (Value item; cursor.next(item);) {
    list.push(filter(engine, item, rest));
  }
  return list.finish(List::Flavour::kGenerator);
}

Value max(Engine& engine, const Value& value, const Arguments& arguments) {
  return extreme(engine, value, arguments, /*largest=*/true);
}

Value min(Engine& engine, const Value& value, const Arguments& arguments) {
  return extreme(engine, value, arguments, /*largest=*/false);
}

Value reject(Engine& engine, const Value& value, const Arguments& arguments) {
  return chosen(engine, value, arguments, /*wanted=*/false, /*by_attribute=*/false);
}

Value rejectattr(Engine& engine, const Value& value, const Arguments& arguments) {
  return chosen(engine, value, arguments, /*wanted=*/false, /*by_attribute=*/true);
}

Value reverse(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "reverse", arguments, {});
  if (value.is_string()) {
    return slice(engine, value, None{}, None{}, std::int64_t{-1});
  }
  Value copy = list_of(engine, value);
  std::ranges::reverse(copy.list()->items);
  copy.list()->flavour = List::Flavour::kGenerator;
  return copy;
}

Value select(Engine& engine, const Value& value, const Arguments& arguments) {
  return chosen(engine, value, arguments, /*wanted=*/true, /*by_attribute=*/false);
}

Value selectattr(Engine& engine, const Value& value, const Arguments& arguments) {
  return chosen(engine, value, arguments, /*wanted=*/true, /*by_attribute=*/true);
}

Value sort(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const Key key(engine, bound.flag(1, false), bound[2]);
  return sorted(engine, value, bound.flag(0, false), [&](const Value& item) { return key.all_of(item); });
}

Value sum(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "sum", arguments, {"attribute", "start"});
  Value total = bound[1] == nullptr ? Value(std::int64_t{0}) : *bound[1];
  if (total.is_string()) {
    engine.fail("sum() can't sum strings [use the filter join instead]");
  }
  const Value* attribute = bound[0] == nullptr || bound[0]->is_none() ? nullptr : bound[0];
  Cursor cursor(engine, value);
  for (Value item; cursor.next(item);) {
    total = arithmetic(engine, Operator::kAdd, total, attribute == nullptr ? item : path_of(engine, item, *attribute));
  }
  return total;
}

Value unique(Engine& engine, const Value& value, const Arguments& arguments) {
  const Bound bound(engine, "unique", arguments, {"case_sensitive", "attribute"});
  const Key key(engine, bound.flag(0, false), bound[1]);
  ListBuilder seen(engine);
  ListBuilder list(engine);
  Cursor cursor(engine, value);
  for (Value item; cursor.next(item);) {
    Value one = key.of(item);
    require_hashable(engine, one);
    if (std::ranges::none_of(seen.items(), [&](const Value& other) { return equal(engine, one, other); })) {
      seen.push(std::move(one));
      list.push(item);
    }
  }
  return list.finish(List::Flavour::kGenerator);
}

}  // namespace filters

}  // namespace caravan::jinja
