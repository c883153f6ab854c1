// Token shards on disk (documents.h says what is in one).  For this room's .cc files only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "caravan/base/file.h"

namespace caravan::data {

// One shard, mapped and checked.
struct Shard {
  std::shared_ptr<const void> owner;
  std::span<const std::int32_t> tokens;
  std::span<const std::int64_t> offsets;  // [documents + 1]
  std::string tokenizer;
  std::int32_t largest_id = -1;
};

// Throws FileError, FormatError: no shard, offsets that do not ascend from 0 to the end, ids below 0, data that are not
// aligned.
Shard open_shard(const std::filesystem::path& path);

// Whether a file is a safetensors file with the metadata of a shard.  Never throws for what is in the file.
bool is_shard(const std::filesystem::path& path);

// Fills shards of a directory, document by document.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path directory, std::string tokenizer, std::int64_t vocab_size,
              std::int64_t shard_tokens);
  void add(std::span<const std::int32_t> document);
  // Writes what is left.  Without documents there is no file.
  void finish();

  std::int64_t documents() const { return documents_; }
  std::int64_t tokens() const { return all_tokens_; }
  std::int64_t shards() const { return shards_; }

 private:
  void write();

  std::filesystem::path directory_;
  std::string tokenizer_;
  std::int64_t vocab_size_;
  std::int64_t shard_tokens_;
  std::vector<std::int32_t> tokens_;
  std::vector<std::int64_t> offsets_ = {0};
  std::int64_t documents_ = 0;
  std::int64_t all_tokens_ = 0;
  std::int64_t shards_ = 0;
};

}  // namespace caravan::data
