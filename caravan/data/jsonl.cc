#include "caravan/data/jsonl.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/data/line_reader.h"

namespace caravan::data {
namespace {

// A list of 2^26 ids is more than any context holds; a value takes 16 bytes here.
constexpr JsonLimits kLimits = {.max_bytes = kMaxLineBytes, .max_values = std::int64_t{1} << 26};

const Json& field(const Json& object, const char* name, const std::string& place) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  if (!object.is_object() || found == object.end()) {
    throw FormatError(fmt::format("{}: expected a JSON object with the field \"{}\", found {}", place, name,
                                  object.is_object() ? "an object without it" : object.type_name()));
  }
  return *found;
}

}  // namespace

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

std::optional<DatasetKind> jsonl_kind(std::string_view line, const std::string& place) {
  const Json json = parse_json(line, place, kLimits);
  if (json.is_object() && json.contains("ids")) {
    return DatasetKind::kJsonlIds;
  }
  if (json.is_object() && json.contains("text")) {
    return DatasetKind::kJsonlText;
  }
  return std::nullopt;
}

std::string jsonl_text(std::string_view line, const std::string& place) {
  const Json json = parse_json(line, place, kLimits);
  const Json& text = field(json, "text", place);
  if (!text.is_string()) {
    throw FormatError(fmt::format("{}: expected a string as \"text\", found {}", place, text.type_name()));
  }
  return text.get<std::string>();
}

std::vector<std::int32_t> jsonl_ids(std::string_view line, const std::string& place) {
  const Json json = parse_json(line, place, kLimits);
  const Json& list = field(json, "ids", place);
  if (!list.is_array()) {
    throw FormatError(
        fmt::format("{}: expected a list of whole numbers as \"ids\", found {}", place, list.type_name()));
  }
  std::vector<std::int32_t> ids;
  ids.reserve(list.size());
  for (const Json& id : list) {
    if (!id.is_number_integer()) {
      throw FormatError(fmt::format("{}: expected whole numbers as \"ids\", found {} at position {}", place,
                                    id.is_number() ? "a fraction or a number beyond 64 bits" : id.type_name(),
                                    ids.size()));
    }
    constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
    const bool too_large = id.is_number_unsigned() && id.get<std::uint64_t>() > std::uint64_t{kMost};
    if (too_large || id.get<std::int64_t>() < 0) {
      throw InputError(fmt::format("{}: the id {} at position {} is outside every vocabulary (0 to {})", place,
                                   id.dump(), ids.size(), kMost));
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

}  // namespace caravan::data
