#include "caravan/data/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/text.h"
#include "caravan/data/shard.h"
#include "caravan/data/shard_cache.h"
#include "caravan/data/tokenise.h"

namespace caravan::data {
namespace {

namespace fs = std::filesystem;

// Of what the ids will be: bare ids know no tokenizer.
std::string fingerprint_of(DatasetKind kind, const Encoder* encoder) {
  return kind == DatasetKind::kJsonlIds || encoder == nullptr ? "" : encoder->fingerprint;
}

// 0 when unknown.
std::int64_t vocabulary_of(DatasetKind kind, const PrepareOptions& options, const Encoder* encoder) {
  return options.vocab_size > 0 || kind == DatasetKind::kJsonlIds || encoder == nullptr ? options.vocab_size
                                                                                        : encoder->vocab_size;
}

void require_tokens(const Documents& documents, const fs::path& dataset) {
  if (documents.tokens() == 0) {
    throw InputError(fmt::format("{}: the data set holds no {}; give it some text", dataset.string(),
                                 documents.size() == 0 ? "documents" : "tokens"));
  }
}

void require_vocabulary(const Documents& documents, std::int64_t vocab_size, const fs::path& dataset) {
  if (vocab_size <= 0 || documents.largest_id() < vocab_size) {
    return;
  }
  for (std::int64_t i = 0; i < documents.size(); ++i) {
    const auto ids = documents[i];
    const auto fault = std::ranges::find_if(ids, [&](std::int32_t id) { return id >= vocab_size; });
    if (fault != ids.end()) {
      throw InputError(
          fmt::format("{}: the id {} at position {} of document {} is outside the vocabulary of {}; give "
                      "the model a larger vocab_size or use the tokenizer it was made for",
                      dataset.string(), *fault, fault - ids.begin(), grouped(i + 1), vocab_size));
    }
  }
}

void require_tokenizer(const Documents& documents, const Encoder* encoder, const fs::path& dataset) {
  if (encoder != nullptr && !documents.tokenizer().empty() && documents.tokenizer() != encoder->fingerprint) {
    throw InputError(
        fmt::format("{}: the shards were made with another tokenizer ({}) than the one given ({}); make "
                    "them again, or name the tokenizer that they were made with",
                    dataset.string(), documents.tokenizer(), encoder->fingerprint));
  }
}

Documents open_shards(const Recognised& recognised, const Encoder* encoder, const fs::path& dataset) {
  Documents documents = Documents::open(recognised.files);
  require_tokenizer(documents, encoder, dataset);
  return documents;
}

ShardSummary fill(const fs::path& directory, const Recognised& recognised, const PrepareOptions& options,
                  const Encoder* encoder) {
  ShardWriter writer(directory, options.shard_tokens, vocabulary_of(recognised.kind, options, encoder),
                     fingerprint_of(recognised.kind, encoder));
  tokenise(recognised, encoder, options, [&](std::span<const std::int32_t> ids) { writer.add(ids); });
  return writer.finish();
}

Documents make_cache_entry(const fs::path& entry, const std::string& key, const Recognised& recognised,
                           const PrepareOptions& options, const Encoder* encoder, const fs::path& dataset) {
  std::error_code error;
  fs::create_directories(options.cache, error);
  if (error) {
    throw FileError(
        fmt::format("{}: the directory for token shards cannot be made: {}", options.cache.string(), error.message()));
  }
  // What stands there under this name is damaged, or no cache entry of ours.
  AtomicDirectory directory(entry, /*replace=*/fs::exists(fs::symlink_status(entry, error)), 0);
  const ShardSummary summary = fill(directory.path(), recognised, options, encoder);
  if (summary.tokens == 0) {
    require_tokens(Documents(), dataset);
  }
  if (cache_key(recognised, fingerprint_of(recognised.kind, encoder)) != key) {
    throw InputError(fmt::format(
        "{}: a file of the data set changed while it was read; start again when it is complete", dataset.string()));
  }
  seal_cache_entry(directory.path(), key, summary);
  try {
    directory.commit();
  } catch (const FileError&) {
    // Another process may have made the same entry meanwhile.
    if (std::optional<Documents> documents = open_cache_entry(entry, key)) {
      return *std::move(documents);
    }
    throw;
  }
  std::optional<Documents> documents = open_cache_entry(entry, key);
  if (!documents) {
    throw FormatError(fmt::format("{}: the token shards were written and cannot be read again; is the disk damaged?",
                                  entry.string()));
  }
  return *std::move(documents);
}

}  // namespace

Documents prepare_with(const fs::path& dataset, const PrepareOptions& options, const Encoder* encoder) {
  const Recognised recognised = recognise(dataset);
  Documents documents;
  if (recognised.kind == DatasetKind::kShards) {
    documents = open_shards(recognised, encoder, dataset);
  } else {
    if (options.cache.empty()) {
      throw ConfigError(fmt::format("{}: is {}, and a directory for its token shards is not named; name a cache",
                                    dataset.string(), to_string(recognised.kind)));
    }
    const std::string key = cache_key(recognised, fingerprint_of(recognised.kind, encoder));
    const fs::path entry = options.cache / key;
    const bool ready = encoder != nullptr || recognised.kind == DatasetKind::kJsonlIds;
    std::optional<Documents> cached = ready ? open_cache_entry(entry, key) : std::nullopt;
    documents = cached ? *std::move(cached) : make_cache_entry(entry, key, recognised, options, encoder, dataset);
  }
  require_tokens(documents, dataset);
  require_vocabulary(documents, options.vocab_size, dataset);
  return documents;
}

ShardSummary write_shards_with(const fs::path& dataset, const fs::path& directory, const PrepareOptions& options,
                               const Encoder* encoder) {
  const Recognised recognised = recognise(dataset);
  AtomicDirectory target(directory, /*replace=*/false, 0);
  ShardSummary summary;
  if (recognised.kind == DatasetKind::kShards) {
    const Documents documents = open_shards(recognised, encoder, dataset);
    require_vocabulary(documents, options.vocab_size, dataset);
    ShardWriter writer(target.path(), options.shard_tokens, options.vocab_size, documents.tokenizer());
    for (std::int64_t i = 0; i < documents.size(); ++i) {
      writer.add(documents[i]);
    }
    summary = writer.finish();
  } else {
    summary = fill(target.path(), recognised, options, encoder);
  }
  if (summary.tokens == 0) {
    require_tokens(Documents(), dataset);
  }
  target.commit();
  return summary;
}

}  // namespace caravan::data
