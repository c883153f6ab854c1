// Typed access to the fields of a JSON object.  For this room's .cc files only.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/base/json.h"

namespace caravan::model_io {

// Messages say "source: field ...".  A null counts as absent, as transformers reads it.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object_.is_object()) {
      throw FormatError(fmt::format("{}: expected a JSON object, found {}", where_, object_.type_name()));
    }
  }

  const Json* find(const std::string& name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  // Whether the key stands there at all, be it null.
  bool has_key(const std::string& name) const { return object_.contains(name); }

  std::optional<std::int64_t> integer(const std::string& name) const {
    const Json* value = find(name);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!is_int64(*value)) {
      wrong_type(name, "a 64-bit integer", *value);
    }
    return value->get<std::int64_t>();
  }

  std::optional<double> number(const std::string& name) const {
    const Json* value = find(name);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!value->is_number()) {
      wrong_type(name, "a number", *value);
    }
    return value->get<double>();
  }

  std::optional<bool> boolean(const std::string& name) const {
    const Json* value = find(name);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!value->is_boolean()) {
      wrong_type(name, "true or false", *value);
    }
    return value->get<bool>();
  }

  std::optional<std::string> text(const std::string& name) const {
    const Json* value = find(name);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!value->is_string()) {
      wrong_type(name, "a string", *value);
    }
    return value->get<std::string>();
  }

  std::vector<double> numbers(const std::string& name) const {
    const Json* value = find(name);
    if (value == nullptr) {
      return {};
    }
    std::vector<double> result;
    if (!value->is_array()) {
      wrong_type(name, "a list of numbers", *value);
    }
    for (const Json& one : *value) {
      if (!one.is_number()) {
        wrong_type(name, "a list of numbers", one);
      }
      result.push_back(one.get<double>());
    }
    return result;
  }

  // One integer or a list of them.
  std::vector<std::int64_t> integers(const std::string& name) const {
    const Json* value = find(name);
    if (value == nullptr) {
      return {};
    }
    const bool list = value->is_array();
    std::vector<std::int64_t> result;
    for (const Json& one : list ? std::vector<Json>(value->begin(), value->end()) : std::vector<Json>{*value}) {
      if (!is_int64(one)) {
        wrong_type(name, "an integer or a list of integers", *value);
      }
      result.push_back(one.get<std::int64_t>());
    }
    return result;
  }

  [[noreturn]] void wrong_type(const std::string& name, const char* expected, const Json& found) const {
    constexpr std::size_t kShown = 60;
    throw FormatError(fmt::format("{}: field \"{}\" must be {}, found {}", where_, name, expected,
                                  found.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, kShown)));
  }

  const std::string& where() const { return where_; }

 private:
  static bool is_int64(const Json& value) {
    return value.is_number_integer() &&
           !(value.is_number_unsigned() &&
             value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
  }

  const Json& object_;
  std::string where_;
};

}  // namespace caravan::model_io
