// One line of JSONL as a document.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/data/documents.h"

namespace caravan::data {

// The kind that a line's fields tell: "ids" before "text".  Nothing when it is an object with neither, or no object.
// Throws FormatError when the line is not JSON; `place` (file:line) opens every message here.
std::optional<DatasetKind> jsonl_kind(std::string_view line, const std::string& place);

bool is_blank(std::string_view line);

// The field "text".  Throws FormatError when the line is no JSON object with a string "text".
std::string jsonl_text(std::string_view line, const std::string& place);

// The field "ids".  Throws FormatError when the line is no JSON object with a list "ids" of whole numbers, InputError
// when one is below 0 or does not fit 32 bits.
std::vector<std::int32_t> jsonl_ids(std::string_view line, const std::string& place);

}  // namespace caravan::data
