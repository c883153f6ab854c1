#include "caravan/tokenizer/tokenizer.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/byte_alphabet.h"
#include "caravan/tokenizer/pages.h"
#include "caravan/tokenizer/table.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kSpareIds = 64;                          // beyond what a text is guessed to give
constexpr std::size_t kMaxShownBytes = std::size_t{64} << 20;  // as large as a file may be

// What one call needs to turn ordinary text into ids.
class TextEncoder {
 public:
  TextEncoder(const Tokenizer::Table& table, bool plain, std::vector<std::int32_t>& ids)
      : table_(table),
        plain_(plain),
        ids_(ids),
        cache_(
            table.caches.lend(table.model, table.spaced ? PieceCache::Spaces::kPlain : PieceCache::Spaces::kSpelled)),
        steps_(table.steps, table.model, *cache_, ids) {}

  void encode(std::string_view text) {
    cache_->expect(text.size());
    for (const AddedStretch& stretch : table_.raw_added.split(text, plain_)) {
      if (stretch.id >= 0) {
        ids_.push_back(stretch.id);
      } else {
        ordinary(text.substr(stretch.begin, stretch.end - stretch.begin), stretch.begin == 0);
      }
    }
  }

 private:
  void ordinary(std::string_view text, bool begins_text) {
    if (table_.pieces) {
      return table_.pieces->encode(text, begins_text || table_.prefixes_every_stretch, *cache_, ids_);
    }
    if (table_.spaced) {
      return encode_spaced(text, wants_prefix(text, begins_text), table_.model, *cache_, ids_);
    }
    std::string normalized;
    if (!table_.normalizer.empty()) {
      normalized = normalize(table_.normalizer, text);
      text = normalized;
    }
    for (const AddedStretch& stretch : table_.normalized_added.split(text, plain_)) {
      if (stretch.id >= 0) {
        ids_.push_back(stretch.id);
      } else {
        steps_.encode(text.substr(stretch.begin, stretch.end - stretch.begin), begins_text && stretch.begin == 0);
      }
    }
  }

  // Of a text that is merged as it is: what Prepend or Metaspace would put before it.
  bool wants_prefix(std::string_view text, bool begins_text) const {
    if (table_.steps.empty()) {
      return !text.empty() && table_.normalizer.front().kind == NormalizerStep::Kind::kPrepend;
    }
    const PrependScheme scheme = table_.steps.front().scheme;
    return (scheme == PrependScheme::kAlways || (scheme == PrependScheme::kFirst && begins_text)) && !text.empty() &&
           text[0] != ' ' && !text.starts_with(kSpaceSymbol);
  }

  const Tokenizer::Table& table_;
  bool plain_;
  std::vector<std::int32_t>& ids_;
  PieceCaches::Lent cache_;
  PieceEncoder steps_;
};

void check_id(const Tokenizer::Table& table, std::int32_t id) {
  if (id < 0 || id >= table.model.tokens.size()) {
    throw InputError(
        fmt::format("the id {} is outside the vocabulary of {} ids", grouped(id), grouped(table.model.tokens.size())));
  }
}

bool contains(const std::vector<std::int32_t>& ids, std::int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

std::optional<std::int32_t> Tokenizer::Table::id_of(std::string_view token) const {
  if (const auto odd = odd_ids.find(std::string(token)); odd != odd_ids.end()) {
    return odd->second;
  }
  if (first_invalid_byte(token)) {
    return std::nullopt;
  }
  if (!byte_level()) {
    return model.tokens.find(token);
  }
  const auto bytes = spelled_bytes(token);
  return bytes ? model.tokens.find(*bytes) : std::nullopt;
}

// Spaces become U+2581 by a Replace, behind a Prepend perhaps, or by a Metaspace that cuts nothing.
bool Tokenizer::Table::has_plain_spaces() const {
  const auto replaces = [](const NormalizerStep& step) {
    return step.kind == NormalizerStep::Kind::kReplace && step.literal == " " && step.content == kSpaceSymbol;
  };
  const auto prepends = [](const NormalizerStep& step) {
    return step.kind == NormalizerStep::Kind::kPrepend && step.content == kSpaceSymbol;
  };
  if (!model.cuts || !normalized_added.empty()) {
    return false;
  }
  if (steps.empty()) {
    return (normalizer.size() == 1 && replaces(normalizer[0])) ||
           (normalizer.size() == 2 && prepends(normalizer[0]) && replaces(normalizer[1]));
  }
  return normalizer.empty() && steps.size() == 1 && steps[0].kind == SplitStep::Kind::kMetaspace &&
         steps[0].mark == kSpaceSymbol && !steps[0].cuts;
}

void Tokenizer::Table::finish(const std::string& source) {
  model.index();
  spaced = pieces ? pieces->has_plain_spaces() : has_plain_spaces();
  if (decoder.kind == DecodeRules::Kind::kBytes) {
    return;
  }
  std::size_t total = 0;
  for (std::int32_t id = 0; id < model.tokens.size(); ++id) {
    if (!model.tokens.has(id)) {
      continue;
    }
    const std::string bytes = bytes_of(decoder, id, model.tokens.bytes(id));
    total += bytes.size();
    if (total > kMaxShownBytes) {
      throw FormatError(fmt::format("{}: the tokens decode to more than {} bytes", source, grouped(kMaxShownBytes)));
    }
    shown.put(id, bytes, /*searchable=*/false);
  }
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::string mended;
  if (!table_->pieces) {
    require_utf8(text);
  } else if (first_invalid_byte(text)) {
    mended = lossy_utf8_by_byte(text);
    text = mended;
  }
  if (text.size() > std::numeric_limits<std::int32_t>::max()) {
    throw InputError(fmt::format("a text of {} bytes is too long to encode at once; cut it into smaller ones",
                                 grouped(static_cast<std::int64_t>(text.size()))));
  }
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + kSpareIds + table_->prefix.size() + table_->suffix.size());
  prefer_large_pages(ids.data(), ids.capacity() * sizeof(std::int32_t));
  if (options.add_special) {
    ids.insert(ids.end(), table_->prefix.begin(), table_->prefix.end());
  }
  TextEncoder(*table_, options.plain, ids).encode(text);
  if (options.add_special) {
    ids.insert(ids.end(), table_->suffix.begin(), table_->suffix.end());
  }
  return ids;
}

std::vector<std::int32_t> Tokenizer::encode_document(std::string_view text) const {
  const Table& table = *table_;
  const auto in_template = [&](std::int32_t id) { return contains(table.prefix, id) || contains(table.suffix, id); };
  require_utf8(text);
  std::vector<std::int32_t> ids = encode(text);
  if (table.bos && table.add_bos && !in_template(*table.bos)) {
    ids.insert(ids.begin(), *table.bos);
  }
  if (table.eos && table.add_eos && !in_template(*table.eos)) {
    ids.push_back(*table.eos);
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string all;
  TokenDecoder decoder(table_->decoder, /*eager=*/false);
  for (const std::int32_t id : ids) {
    check_id(*table_, id);
    if (table_->model.tokens.has(id) && !(skip_special && table_->special.contains(id))) {
      decoder.push(id, table_->model.tokens.bytes(id), all);
    }
  }
  decoder.finish(all);
  return table_->decoder.kind == DecodeRules::Kind::kBytes ? lossy_utf8(all) : all;
}

std::string_view Tokenizer::bytes(std::int32_t id) const {
  check_id(*table_, id);
  return table_->decoder.kind == DecodeRules::Kind::kBytes ? table_->model.tokens.bytes(id) : table_->shown.bytes(id);
}

bool Tokenizer::is_special(std::int32_t id) const {
  return table_->special.contains(id);
}

std::optional<std::int32_t> Tokenizer::id_of(std::string_view token) const {
  return table_->id_of(token);
}

std::int64_t Tokenizer::vocab_size() const {
  return table_->model.tokens.size();
}

std::optional<std::int32_t> Tokenizer::bos() const {
  return table_->bos;
}

std::optional<std::int32_t> Tokenizer::eos() const {
  return table_->eos;
}

std::optional<std::int32_t> Tokenizer::pad() const {
  return table_->pad;
}

const std::string& Tokenizer::fingerprint() const {
  return table_->fingerprint;
}

struct StreamDecoder::State {
  Tokenizer tokenizer;
  const Tokenizer::Table& table;
  bool skip_special;
  TokenDecoder decoder;
  std::string pending;  // of a byte-level vocabulary: the beginning of a character
};

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special) {
  const Tokenizer::Table& table = *tokenizer.table_;
  state_ = std::make_unique<State>(
      State{std::move(tokenizer), table, skip_special, TokenDecoder(table.decoder, /*eager=*/true), {}});
}

StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(std::int32_t id) {
  State& state = *state_;
  check_id(state.table, id);
  std::string text;
  if (state.table.model.tokens.has(id) && !(state.skip_special && state.table.special.contains(id))) {
    state.decoder.push(id, state.table.model.tokens.bytes(id), text);
  }
  if (state.table.decoder.kind != DecodeRules::Kind::kBytes) {
    return text;
  }
  state.pending += text;
  const std::size_t certain = certain_prefix(state.pending);
  text = lossy_utf8(std::string_view(state.pending).substr(0, certain));
  state.pending.erase(0, certain);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  state_->decoder.finish(text);
  return text.append(lossy_utf8(std::exchange(state_->pending, "")));
}

}  // namespace caravan::tokenizer
