#include "caravan/data/shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/checkpoint/safetensors.h"

namespace caravan::data {

namespace {

using checkpoint::SafetensorsFile;
using checkpoint::TensorEntry;

constexpr const char* kVersionKey = "caravan.shard";
constexpr const char* kVersion = "1";
constexpr const char* kTokenizerKey = "caravan.tokenizer";
constexpr const char* kVocabularyKey = "caravan.vocab_size";

template <typename T>
std::span<const T> elements(const SafetensorsFile& file, const char* name, DType dtype) {
  const TensorEntry* entry = file.find(name);
  if (entry == nullptr || entry->dtype != dtype || entry->shape.size() != 1) {
    throw FormatError(
        fmt::format("{}: a token shard has a vector \"{}\" of {}; make it again with caravan tokenize "
                    "--to-shards",
                    file.path().string(), name, to_string(dtype)));
  }
  const std::span<const std::byte> bytes = file.bytes(*entry);
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) != 0) {
    throw FormatError(
        fmt::format("{}: \"{}\" does not begin at a multiple of {} bytes; make the shard again with caravan "
                    "tokenize --to-shards",
                    file.path().string(), name, alignof(T)));
  }
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

void check_offsets(const SafetensorsFile& file, const Shard& shard) {
  const auto fail = [&](std::size_t document, const char* problem) {
    throw FormatError(fmt::format("{}: document {} of the token shard {}; the file is damaged", file.path().string(),
                                  document + 1, problem));
  };
  if (shard.offsets.empty() || shard.offsets.front() != 0 ||
      shard.offsets.back() != static_cast<std::int64_t>(shard.tokens.size())) {
    fail(0, "does not begin at 0, or the last one does not end with the tokens");
  }
  for (std::size_t i = 1; i < shard.offsets.size(); ++i) {
    if (shard.offsets[i] < shard.offsets[i - 1]) {
      fail(i - 1, "ends before it begins");
    }
  }
}

}  // namespace

Shard open_shard(const std::filesystem::path& path) {
  const auto file = std::make_shared<const SafetensorsFile>(SafetensorsFile::open(path));
  const auto version = file->header().metadata.find(kVersionKey);
  if (version == file->header().metadata.end() || version->second != kVersion) {
    throw FormatError(
        fmt::format("{}: no token shard of version {} (metadata \"{}\")", path.string(), kVersion, kVersionKey));
  }
  Shard shard;
  shard.owner = file;
  shard.tokens = elements<std::int32_t>(*file, "tokens", DType::kI32);
  shard.offsets = elements<std::int64_t>(*file, "documents", DType::kI64);
  if (const auto found = file->header().metadata.find(kTokenizerKey); found != file->header().metadata.end()) {
    shard.tokenizer = found->second;
  }
  check_offsets(*file, shard);
  std::int32_t smallest = 0;
  for (const std::int32_t id : shard.tokens) {
    smallest = std::min(smallest, id);
    shard.largest_id = std::max(shard.largest_id, id);
  }
  if (smallest < 0) {
    throw FormatError(
        fmt::format("{}: the token shard holds the id {}; ids are not negative", path.string(), smallest));
  }
  return shard;
}

bool is_shard(const std::filesystem::path& path) {
  try {
    const SafetensorsFile file = SafetensorsFile::open(path);
    return file.header().metadata.contains(kVersionKey);
  } catch (const Error&) {
    return false;
  }
}

ShardWriter::ShardWriter(std::filesystem::path directory, std::string tokenizer, std::int64_t vocab_size,
                         std::int64_t shard_tokens)
    : directory_(std::move(directory)),
      tokenizer_(std::move(tokenizer)),
      vocab_size_(vocab_size),
      shard_tokens_(shard_tokens) {}

void ShardWriter::add(std::span<const std::int32_t> document) {
  const auto length = static_cast<std::int64_t>(document.size());
  if (!tokens_.empty() && static_cast<std::int64_t>(tokens_.size()) + length > shard_tokens_) {
    write();
  }
  tokens_.insert(tokens_.end(), document.begin(), document.end());
  offsets_.push_back(static_cast<std::int64_t>(tokens_.size()));
  ++documents_;
  all_tokens_ += length;
}

void ShardWriter::finish() {
  if (offsets_.size() > 1) {
    write();
  }
}

void ShardWriter::write() {
  const auto path = directory_ / fmt::format("tokens-{:05}.safetensors", shards_);
  // The wider type first keeps both aligned.
  checkpoint::SafetensorsWriter writer(
      path,
      {{"documents", DType::kI64, {static_cast<std::int64_t>(offsets_.size())}},
       {"tokens", DType::kI32, {static_cast<std::int64_t>(tokens_.size())}}},
      {{kVersionKey, kVersion}, {kTokenizerKey, tokenizer_}, {kVocabularyKey, std::to_string(vocab_size_)}});
  writer.append(std::as_bytes(std::span(offsets_)));
  writer.append(std::as_bytes(std::span(tokens_)));
  writer.finish();
  ++shards_;
  tokens_.clear();
  offsets_ = {0};
}

}  // namespace caravan::data
