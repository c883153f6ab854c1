#include "caravan/data/shard.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <type_traits>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/text.h"
#include "caravan/checkpoint/safetensors.h"

namespace caravan::data {
namespace {

using checkpoint::SafetensorsHeader;
using checkpoint::TensorEntry;

constexpr const char* kVersionKey = "caravan.shard";
constexpr const char* kVersion = "1";
constexpr const char* kVocabularyKey = "caravan.vocab_size";
constexpr const char* kTokenizerKey = "caravan.tokenizer";
constexpr const char* kHashKey = "caravan.xxh3";

// The value of a key; `missing` where it is not there.
std::string metadata_of(const SafetensorsHeader& header, const char* key, const std::string& missing = "") {
  const auto found = header.metadata.find(key);
  return found == header.metadata.end() ? missing : found->second;
}

std::string hash_text(std::span<const std::int64_t> offsets, std::span<const std::int32_t> tokens) {
  const std::uint64_t first = XXH3_64bits(offsets.data(), offsets.size_bytes());
  return fmt::format("{:016x}", XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), first));
}

// The elements of a tensor where they lie, or a copy of them where they are not aligned.
template <typename T>
std::span<const T> elements(std::span<const std::byte> bytes, std::vector<T>& copy) {
  const std::size_t count = bytes.size() / sizeof(T);
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) == 0) {
    return {reinterpret_cast<const T*>(bytes.data()), count};
  }
  copy.resize(count);
  std::memcpy(copy.data(), bytes.data(), count * sizeof(T));
  return copy;
}

const TensorEntry& list_of(const SafetensorsHeader& header, const char* name, DType dtype, const std::string& source) {
  const auto found = std::ranges::find(header.entries, name, &TensorEntry::name);
  if (found == header.entries.end() || found->dtype != dtype || found->shape.size() != 1) {
    throw FormatError(fmt::format("{}: a token shard has a tensor \"{}\" of type {} and one axis, and this one {}",
                                  source, name, checkpoint::safetensors_name(dtype),
                                  found == header.entries.end()
                                      ? std::string("has none of that name")
                                      : fmt::format("is {} with {} axes", found->dtype_name, found->shape.size())));
  }
  return *found;
}

void check_offsets(std::span<const std::int64_t> offsets, std::int64_t tokens, const std::string& source) {
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != tokens) {
    throw FormatError(fmt::format(
        "{}: the offsets of the documents must lead from 0 to {}, and {}", source, grouped(tokens),
        offsets.empty() ? std::string("there are none")
                        : fmt::format("lead from {} to {}", grouped(offsets.front()), grouped(offsets.back()))));
  }
  const auto fault = std::ranges::adjacent_find(offsets, std::ranges::greater{});
  if (fault != offsets.end()) {
    throw FormatError(fmt::format("{}: document {} ends at token {}, before its beginning at {}", source,
                                  grouped(fault - offsets.begin()), grouped(fault[1]), grouped(fault[0])));
  }
}

// The number in the metadata, 0 when unknown.
std::int64_t vocabulary_of(const SafetensorsHeader& header, const std::string& source) {
  const std::string text = metadata_of(header, kVocabularyKey, "0");
  std::int64_t size = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (error != std::errc{} || end != text.data() + text.size() || size < 0) {
    throw FormatError(fmt::format("{}: the metadata \"{}\" must be a whole number, found \"{}\"", source,
                                  kVocabularyKey, printable(text)));
  }
  return size;
}

// Largest id.  Ids below 0, or not below the file's own vocabulary, are damage.
std::int32_t check_ids(std::span<const std::int32_t> tokens, std::int64_t vocab_size, const std::string& source) {
  std::uint32_t largest = 0;  // a negative id is a very large one
  for (const std::int32_t id : tokens) {
    largest = std::max(largest, static_cast<std::uint32_t>(id));
  }
  const std::uint32_t bound =
      vocab_size > 0 && vocab_size <= INT32_MAX ? static_cast<std::uint32_t>(vocab_size) : std::uint32_t{INT32_MAX} + 1;
  if (!tokens.empty() && largest >= bound) {
    const auto fault =
        std::ranges::find_if(tokens, [&](std::int32_t id) { return static_cast<std::uint32_t>(id) >= bound; });
    throw FormatError(fmt::format("{}: token {} is {}, outside the vocabulary of {}", source,
                                  grouped(fault - tokens.begin()), *fault, grouped(bound)));
  }
  return tokens.empty() ? -1 : static_cast<std::int32_t>(largest);
}

std::string not_a_shard(const std::string& source, const SafetensorsHeader& header) {
  const std::string version = metadata_of(header, kVersionKey);
  return version.empty() ? fmt::format(
                               "{}: is a safetensors file, but holds no tokens (its metadata has no \"{}\"); "
                               "give text, JSONL, or shards made by `caravan tokenize --to-shards`",
                               source, kVersionKey)
                         : fmt::format("{}: is a token shard of version \"{}\", and this Caravan reads version {}",
                                       source, printable(version), kVersion);
}

struct Storage {
  std::shared_ptr<const void> mapping;
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> offsets;
};

}  // namespace

Shard parse_shard(std::span<const std::byte> file, std::shared_ptr<const void> owner, const std::string& source) {
  const SafetensorsHeader header =
      checkpoint::parse_safetensors_header(file, static_cast<std::int64_t>(file.size()), source);
  if (metadata_of(header, kVersionKey) != kVersion) {
    throw FormatError(not_a_shard(source, header));
  }
  const auto storage = std::make_shared<Storage>();
  storage->mapping = std::move(owner);
  const auto bytes_of = [&](const char* name, DType dtype) {
    const TensorEntry& entry = list_of(header, name, dtype, source);
    return file.subspan(static_cast<std::size_t>(header.data_begin + entry.begin),
                        static_cast<std::size_t>(entry.bytes()));
  };
  Shard shard;
  shard.source = source;
  shard.tokenizer = metadata_of(header, kTokenizerKey);
  shard.tokens = elements(bytes_of("tokens", DType::kI32), storage->tokens);
  shard.offsets = elements(bytes_of("documents", DType::kI64), storage->offsets);
  const std::string expected = metadata_of(header, kHashKey);
  if (!expected.empty() && expected != hash_text(shard.offsets, shard.tokens)) {
    throw FormatError(
        fmt::format("{}: the content is damaged: its hash is {}, and {} was written; make the shards "
                    "again",
                    source, hash_text(shard.offsets, shard.tokens), printable(expected, 32)));
  }
  check_offsets(shard.offsets, static_cast<std::int64_t>(shard.tokens.size()), source);
  shard.largest_id = check_ids(shard.tokens, vocabulary_of(header, source), source);
  shard.owner = storage;
  return shard;
}

Shard open_shard(const std::filesystem::path& path) {
  const MappedFile file = MappedFile::open(path);
  return parse_shard(file.bytes(), file.owner(), path.string());
}

Shard make_shard(std::vector<std::int32_t> tokens, std::vector<std::int64_t> offsets) {
  const auto storage = std::make_shared<Storage>();
  storage->tokens = std::move(tokens);
  storage->offsets = std::move(offsets);
  Shard shard;
  shard.tokens = storage->tokens;
  shard.offsets = storage->offsets;
  shard.largest_id = check_ids(shard.tokens, 0, "documents in memory");
  shard.source = "documents in memory";
  shard.owner = storage;
  return shard;
}

void require_shard(const std::filesystem::path& path) {
  const MappedFile file = MappedFile::open(path);
  const SafetensorsHeader header =
      checkpoint::parse_safetensors_header(file.bytes(), static_cast<std::int64_t>(file.bytes().size()), path.string());
  if (metadata_of(header, kVersionKey) != kVersion) {
    throw InputError(not_a_shard(path.string(), header));
  }
}

std::string token_shard_name(std::int64_t index) {
  return fmt::format("tokens-{:06}.safetensors", index);
}

ShardWriter::ShardWriter(std::filesystem::path directory, std::int64_t shard_tokens, std::int64_t vocab_size,
                         std::string tokenizer)
    : directory_(std::move(directory)),
      shard_tokens_(shard_tokens),
      vocab_size_(vocab_size),
      tokenizer_(std::move(tokenizer)) {
  if (shard_tokens <= 0) {
    throw ConfigError(fmt::format("a shard of {} tokens is impossible; give a number above 0", shard_tokens));
  }
}

void ShardWriter::add(std::span<const std::int32_t> ids) {
  if (!tokens_.empty() && static_cast<std::int64_t>(tokens_.size() + ids.size()) > shard_tokens_) {
    flush();
  }
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  offsets_.push_back(static_cast<std::int64_t>(tokens_.size()));
}

void ShardWriter::flush() {
  const auto extent = [](const auto& list) { return std::vector{static_cast<std::int64_t>(list.size())}; };
  const std::map<std::string, std::string> metadata = {{kVersionKey, kVersion},
                                                       {kVocabularyKey, std::to_string(vocab_size_)},
                                                       {kTokenizerKey, tokenizer_},
                                                       {kHashKey, hash_text(offsets_, tokens_)}};
  // The wider type first: both then lie aligned.
  checkpoint::SafetensorsWriter writer(
      directory_ / token_shard_name(summary_.shards),
      {{"documents", DType::kI64, extent(offsets_)}, {"tokens", DType::kI32, extent(tokens_)}}, metadata);
  writer.append(std::as_bytes(std::span(offsets_)));
  writer.append(std::as_bytes(std::span(tokens_)));
  writer.finish();
  ++summary_.shards;
  summary_.tokens += static_cast<std::int64_t>(tokens_.size());
  summary_.documents += static_cast<std::int64_t>(offsets_.size()) - 1;
  tokens_.clear();
  offsets_.assign(1, 0);
}

ShardSummary ShardWriter::finish() {
  if (offsets_.size() > 1 || summary_.shards == 0) {
    flush();
  }
  return summary_;
}

}  // namespace caravan::data
