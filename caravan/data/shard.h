// One token shard: opened with suspicion, written with a hash of its content.
//
// Besides what documents.h names, the metadata holds "caravan.xxh3" (XXH3-64 of the bytes of documents and tokens, 16
// hexadecimal digits).  A shard without it is accepted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "caravan/data/documents.h"

namespace caravan::data {

struct Shard {
  std::shared_ptr<const void> owner;  // of the memory below
  std::span<const std::int32_t> tokens;
  std::span<const std::int64_t> offsets;  // [documents + 1], ascending from 0 to tokens.size()
  std::int32_t largest_id = -1;
  std::string tokenizer;
  std::string source;

  std::int64_t documents() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

// Reads every byte once: offsets, ids and hash are checked.  Throws FileError, FormatError.
Shard open_shard(const std::filesystem::path& path);
// The same over the bytes of a whole file, kept alive by `owner`.
Shard parse_shard(std::span<const std::byte> file, std::shared_ptr<const void> owner, const std::string& source);
// From memory; offsets must be right.
Shard make_shard(std::vector<std::int32_t> tokens, std::vector<std::int64_t> offsets);

// Reads the header alone.  Throws InputError when the file is well-formed but no token shard, FileError, FormatError.
void require_shard(const std::filesystem::path& path);

// "tokens-000003.safetensors": names whose order is the shards' order.
std::string token_shard_name(std::int64_t index);

// Collects documents and writes a shard whenever the next one would not fit.  Documents are never cut: a longer one
// than `shard_tokens` gets a shard of its own.
class ShardWriter {
 public:
  // Throws ConfigError when `shard_tokens` is not above 0.
  ShardWriter(std::filesystem::path directory, std::int64_t shard_tokens, std::int64_t vocab_size,
              std::string tokenizer);

  // Throws FileError when the system refuses.
  void add(std::span<const std::int32_t> ids);
  // Writes what is left; without any document one empty shard.
  ShardSummary finish();

 private:
  void flush();

  std::filesystem::path directory_;
  std::int64_t shard_tokens_;
  std::int64_t vocab_size_;
  std::string tokenizer_;
  std::vector<std::int32_t> tokens_;
  std::vector<std::int64_t> offsets_ = {0};
  ShardSummary summary_;
};

}  // namespace caravan::data
