#include "caravan/data/encoder.h"

#include <optional>

#include "caravan/data/documents.h"
#include "caravan/data/prepare.h"
#include "caravan/tokenizer/tokenizer.h"

namespace caravan::data {
namespace {

std::optional<Encoder> encoder_of(const tokenizer::Tokenizer* tokenizer) {
  if (tokenizer == nullptr) {
    return std::nullopt;
  }
  return Encoder{.encode = [tokenizer](std::string_view text) { return tokenizer->encode_document(text); },
                 .fingerprint = tokenizer->fingerprint(),
                 .vocab_size = tokenizer->vocab_size()};
}

}  // namespace

Documents prepare(const std::filesystem::path& dataset, const PrepareOptions& options) {
  const std::optional<Encoder> encoder = encoder_of(options.tokenizer);
  return prepare_with(dataset, options, encoder ? &*encoder : nullptr);
}

ShardSummary write_shards(const std::filesystem::path& dataset, const std::filesystem::path& directory,
                          const PrepareOptions& options) {
  const std::optional<Encoder> encoder = encoder_of(options.tokenizer);
  return write_shards_with(dataset, directory, options, encoder ? &*encoder : nullptr);
}

}  // namespace caravan::data
