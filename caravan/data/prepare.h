// prepare() and write_shards() with the tokenizer as a function.
#pragma once

#include <filesystem>

#include "caravan/data/documents.h"
#include "caravan/data/encoder.h"

namespace caravan::data {

// As documents.h says; options.tokenizer is not looked at, `encoder` may be null.
Documents prepare_with(const std::filesystem::path& dataset, const PrepareOptions& options, const Encoder* encoder);
ShardSummary write_shards_with(const std::filesystem::path& dataset, const std::filesystem::path& directory,
                               const PrepareOptions& options, const Encoder* encoder);

}  // namespace caravan::data
