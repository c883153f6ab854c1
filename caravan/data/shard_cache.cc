#include "caravan/data/shard_cache.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/data/shard.h"

namespace caravan::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSeal = ".caravan-cache.json";
constexpr std::int64_t kMaxSealBytes = 4096;
// Raised when the same files would become other shards.
constexpr int kCacheVersion = 1;

}  // namespace

std::string cache_key(const Recognised& dataset, const std::string& tokenizer) {
  std::string text = fmt::format("{}\n{}\n{}\n", kCacheVersion, to_string(dataset.kind), tokenizer);
  for (const fs::path& file : dataset.files) {
    std::error_code error;
    const std::string path = fs::canonical(file, error).string();
    const std::uintmax_t size = error ? 0 : fs::file_size(file, error);
    const auto time = error ? fs::file_time_type{} : fs::last_write_time(file, error);
    if (error) {
      throw FileError(fmt::format("{}: cannot be examined: {}", file.string(), error.message()));
    }
    text += fmt::format("{} {} {} {}\n", path.size(), path, size, time.time_since_epoch().count());
  }
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::optional<Documents> open_cache_entry(const fs::path& entry, const std::string& key) {
  try {
    const fs::path path = entry / kSeal;
    const Json seal = parse_json(read_text_file(path, kMaxSealBytes), path.string());
    if (seal.at("key") != key) {
      return std::nullopt;
    }
    std::vector<fs::path> shards;
    for (std::int64_t i = 0; i < seal.at("shards").get<std::int64_t>(); ++i) {
      shards.push_back(entry / token_shard_name(i));
      if (!fs::exists(shards.back())) {
        return std::nullopt;
      }
    }
    Documents documents = Documents::open(shards);
    if (documents.size() != seal.at("documents") || documents.tokens() != seal.at("tokens")) {
      return std::nullopt;
    }
    return documents;
  } catch (const Error&) {  // whatever is wrong with it, it is made again
  } catch (const Json::exception&) {
  } catch (const fs::filesystem_error&) {
  }
  return std::nullopt;
}

void seal_cache_entry(const fs::path& directory, const std::string& key, const ShardSummary& summary) {
  const Json seal = {
      {"key", key}, {"shards", summary.shards}, {"documents", summary.documents}, {"tokens", summary.tokens}};
  write_text_file(directory / kSeal, seal.dump() + "\n");
}

}  // namespace caravan::data
