// The vocabulary and the merges of a tokenizer.json, read without a document tree: they are nearly all of the file, 400,000
// strings in Llama 3's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace caravan::tokenizer {

struct ScannedModel {
  std::string rest;  // the file with {} and [] in their places
  // In the order of the file; views into it, or into `unescaped`.
  std::vector<std::pair<std::string_view, std::int32_t>> vocabulary;
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  std::string unescaped;
};

// Nothing where the file is not plain in every respect: what is wrong with it, or only uncommon, is for the reader of
// the whole document to find.  What is given is right as far as it goes: `rest` has not been looked at, and a token may
// come twice.
std::optional<ScannedModel> scan_model(std::string_view text);

}  // namespace caravan::tokenizer
