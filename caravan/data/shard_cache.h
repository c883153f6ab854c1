// Where the shards of a data set that was tokenised before are found again.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "caravan/data/documents.h"

namespace caravan::data {

// 32 hexadecimal digits of the kind, the files (canonical path, size, time of the last change) and the tokenizer: what
// the shards were made from.  Throws FileError.
std::string cache_key(const Recognised& dataset, const std::string& tokenizer);

// A cache entry is a directory of that name: shards, and a hidden file that says which and how many.
// Nothing when the entry is missing, damaged, or was made from something else.
std::optional<Documents> open_cache_entry(const std::filesystem::path& entry, const std::string& key);

// Writes the hidden file into a directory of `summary.shards` shards.
void seal_cache_entry(const std::filesystem::path& directory, const std::string& key, const ShardSummary& summary);

}  // namespace caravan::data
