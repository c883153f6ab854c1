// Documents as token ids: text, JSONL or shards, tokenised once and mapped from then on.
//
// Every kind of data set becomes documents in token shards before the first step.  So a damaged line is found before
// anything is trained, the number of rows is known, and any row can be made without reading the ones before it.
//
// A token shard is a safetensors file: "tokens" [n] i32, "documents" [d + 1] i64 (offsets into tokens, from 0 to n),
// and metadata "caravan.shard" = "1", "caravan.vocab_size", "caravan.tokenizer" (the fingerprint; empty for bare ids),
// "caravan.xxh3" (of the content; may be missing).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "caravan/tokenizer/tokenizer.h"

namespace caravan::data {

enum class DatasetKind { kText, kJsonlText, kJsonlIds, kShards };
const char* to_string(DatasetKind kind);  // "text", "jsonl", "jsonl of ids", "token shards"

// What a path is, from the path and the first bytes of its content alone: a file or a directory (all files below it in
// the order of their paths, one kind for all; hidden files are passed over), each plain, .gz or .zst.
//
//   JSONL   the name ends in .jsonl, .ndjson or .json, or the first line is a JSON object with "ids" or "text"; the
//           first line's fields tell which ("ids" before "text")
//   shards  .safetensors with the metadata of a token shard
//   text    .txt, .md, and anything else in UTF-8 without zero bytes
//
// Throws FileError when there is nothing, InputError when a directory is empty, mixes kinds or holds an unknown kind,
// FormatError (file, line) when the first line of a JSONL file is damaged.
struct Recognised {
  DatasetKind kind = DatasetKind::kText;
  std::vector<std::filesystem::path> files;
};
Recognised recognise(const std::filesystem::path& path);

// Documents of ids in mapped memory.  Copies share the mapping.  Made without arguments it holds none.
class Documents {
 public:
  // Opens shards in this order and reads every byte once to check it.  Throws FileError, FormatError (a damaged shard),
  // InputError (shards of two tokenizers).
  static Documents open(const std::vector<std::filesystem::path>& shards);
  // From memory, for tests and small sets.
  static Documents of(const std::vector<std::vector<std::int32_t>>& documents);

  std::int64_t size() const;    // documents
  std::int64_t tokens() const;  // of all documents
  std::span<const std::int32_t> operator[](std::int64_t index) const;
  std::int32_t largest_id() const;       // -1 without tokens
  const std::string& tokenizer() const;  // fingerprint; empty: unknown

  // Two parts by tokens: the documents up to the share 1 - fraction, and the rest; a document across the cut is cut.
  std::pair<Documents, Documents> split(double fraction) const;
  // Several sets one after the other.
  static Documents concatenate(const std::vector<Documents>& sets);

 private:
  struct State;
  static std::shared_ptr<const State> empty();
  std::shared_ptr<const State> state_ = empty();
};

struct PrepareOptions {
  std::filesystem::path cache = {};                 // directory for shards made from other kinds; made when missing
  const tokenizer::Tokenizer* tokenizer = nullptr;  // needed for text
  std::int64_t vocab_size = 0;                      // ids must be below it; 0: not checked
  std::int64_t shard_tokens = std::int64_t{1} << 26;
  int threads = 1;
  std::function<void(std::int64_t done, std::int64_t total)> progress = {};  // bytes of the files
};

// The documents of a data set.  Text and JSONL are tokenised into shards below `cache` the first time and mapped from
// there later, as long as the files (path, size, time), the tokenizer and the kind are the same.
// Text: one document a file, encode_document(); an empty file is none.  JSONL: one a line; a string "text" is encoded,
// a list "ids" is taken as it stands, without BOS or EOS; empty lines are passed over; other fields are ignored.
// Throws InputError: no tokenizer for text, a byte that is not UTF-8 (file, offset), no documents at all, an id outside
// the vocabulary (file, line; of shards the document), shards of another tokenizer than the one given; FormatError: a
// damaged gz, zst or JSON line (file, line); FileError.
Documents prepare(const std::filesystem::path& dataset, const PrepareOptions& options);

// Writes a data set as shards into a directory (`caravan tokenize --to-shards`), which appears whole or not at all.
struct ShardSummary {
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
  std::int64_t shards = 0;
};
ShardSummary write_shards(const std::filesystem::path& dataset, const std::filesystem::path& directory,
                          const PrepareOptions& options);

}  // namespace caravan::data
