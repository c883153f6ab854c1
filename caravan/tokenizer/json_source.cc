#include "caravan/tokenizer/json_source.h"

#include <fmt/core.h>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/vocabulary.h"

namespace caravan::tokenizer {

namespace {

constexpr std::uint64_t kMaxCount = 1'000'000;

}  // namespace

void JsonSource::broken(const std::string& what) const {
  throw FormatError(fmt::format("{}: {}", source_, what));
}

void JsonSource::unsupported(const std::string& what) const {
  throw UnsupportedError(fmt::format("{}: {} is not supported", source_, what));
}

const Json* JsonSource::find(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const Json& JsonSource::member(const Json& object, const char* name) {
  static const Json kNull;
  const Json* found = find(object, name);
  return found == nullptr ? kNull : *found;
}

bool JsonSource::flag(const Json& object, const char* name, bool otherwise) const {
  const Json* found = find(object, name);
  require(found == nullptr || found->is_boolean(), fmt::format("\"{}\" is not true or false", name));
  return found == nullptr ? otherwise : found->get<bool>();
}

std::string JsonSource::text(const Json& object, const char* name, const std::string& where) const {
  const Json* found = object.is_object() ? find(object, name) : nullptr;
  require(found != nullptr && found->is_string(), fmt::format("{} has no text \"{}\"", where, name));
  return found->get<std::string>();
}

const Json& JsonSource::list(const Json& object, const char* name, const std::string& where) const {
  const Json& found = member(object, name);
  require(found.is_array(), fmt::format("{} has no list \"{}\"", where, name));
  return found;
}

std::size_t JsonSource::count(const Json& object, const char* name, std::size_t otherwise) const {
  const Json* found = find(object, name);
  if (found == nullptr) {
    return otherwise;
  }
  require(found->is_number_unsigned() && found->get<std::uint64_t>() <= kMaxCount,
          fmt::format("\"{}\" is not a whole number from 0 to {}", name, grouped(kMaxCount)));
  return found->get<std::size_t>();
}

std::int32_t JsonSource::id(const Json& value, const std::string& of) const {
  const bool right = value.is_number_unsigned() && value.get<std::uint64_t>() <= std::uint64_t{kMaxId};
  require(right, fmt::format("the id of {} is not a whole number from 0 to {}", of, grouped(kMaxId)));
  return value.get<std::int32_t>();
}

}  // namespace caravan::tokenizer
