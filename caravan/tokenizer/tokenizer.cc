#include "caravan/tokenizer/tokenizer.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/byte_alphabet.h"
#include "caravan/tokenizer/table.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

constexpr std::int64_t kMaxTokenizerBytes = std::int64_t{64} << 20;
constexpr std::int64_t kMaxConfigBytes = std::int64_t{4} << 20;

// Takes ordinary text through the steps of the pre-tokenizer and merges what comes out.
class PieceEncoder {
 public:
  PieceEncoder(const Tokenizer::Table& table, std::vector<std::int32_t>& ids)
      : steps_(table.steps), cache_(table.model), ids_(ids) {}

  void encode(std::string_view text, std::size_t step = 0) {
    if (text.empty()) {
      return;
    }
    if (step == steps_.size()) {
      cache_.encode(text, ids_);
      return;
    }
    const SplitStep& one = steps_[step];
    switch (one.kind) {
      case SplitStep::Kind::kPrefixSpace:
        if (text[0] == ' ') {
          return encode(text, step + 1);
        }
        return encode(std::string(" ").append(text), step + 1);
      case SplitStep::Kind::kGpt2:
        return scan(text, step, [](std::string_view all, std::size_t at) { return gpt2_piece_end(all, at); });
      case SplitStep::Kind::kLlama3:
        return scan(text, step, [digits = one.digits](std::string_view all, std::size_t at) {
          return llama3_piece_end(all, at, digits);
        });
      case SplitStep::Kind::kPattern:
        break;
    }
    std::vector<Stretch> stretches = one.pattern->find(text);
    for (Stretch& stretch : stretches) {
      stretch.is_match = stretch.is_match != one.invert;
    }
    for (const Stretch& piece : split_pieces(std::move(stretches), one.behavior)) {
      encode(text.substr(piece.begin, piece.end - piece.begin), step + 1);
    }
  }

 private:
  template <typename PieceEnd>
  void scan(std::string_view text, std::size_t step, PieceEnd piece_end) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = piece_end(text, at);
      encode(text.substr(at, end - at), step + 1);
      at = end;
    }
  }

  const std::vector<SplitStep>& steps_;
  PieceCache cache_;
  std::vector<std::int32_t>& ids_;
};

void encode_plain_text(const Tokenizer::Table& table, std::string_view text, bool plain, PieceEncoder& pieces,
                       std::vector<std::int32_t>& ids) {
  std::string normalized;
  if (!table.normal_forms.empty()) {
    normalized = text;
    for (const NormalForm form : table.normal_forms) {
      normalized = normalize(form, normalized);
    }
    text = normalized;
  }
  for (const AddedStretch& stretch : table.normalized_added.split(text, plain)) {
    if (stretch.id >= 0) {
      ids.push_back(stretch.id);
    } else {
      pieces.encode(text.substr(stretch.begin, stretch.end - stretch.begin));
    }
  }
}

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
  const auto bytes = spelled_bytes(token);
  return bytes ? model.tokens.find(*bytes) : std::nullopt;
}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::path file = std::filesystem::is_directory(path, ignored) ? path / "tokenizer.json" : path;
  const std::string json = read_text_file(file, kMaxTokenizerBytes);
  const std::filesystem::path config = file.parent_path() / "tokenizer_config.json";
  const bool configured = std::filesystem::exists(config, ignored);
  return parse(json, file.string(), configured ? read_text_file(config, kMaxConfigBytes) : "");
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  require_utf8(text);
  if (text.size() > std::numeric_limits<std::int32_t>::max()) {
    throw InputError(fmt::format("a text of {} bytes is too long to encode at once; cut it into smaller ones",
                                 grouped(static_cast<std::int64_t>(text.size()))));
  }
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + table_->prefix.size() + table_->suffix.size());
  if (options.add_special) {
    ids = table_->prefix;
  }
  PieceEncoder pieces(*table_, ids);
  for (const AddedStretch& stretch : table_->raw_added.split(text, options.plain)) {
    if (stretch.id >= 0) {
      ids.push_back(stretch.id);
    } else {
      encode_plain_text(*table_, text.substr(stretch.begin, stretch.end - stretch.begin), options.plain, pieces, ids);
    }
  }
  if (options.add_special) {
    ids.insert(ids.end(), table_->suffix.begin(), table_->suffix.end());
  }
  return ids;
}

std::vector<std::int32_t> Tokenizer::encode_document(std::string_view text) const {
  const Table& table = *table_;
  const auto in_template = [&](std::int32_t id) { return contains(table.prefix, id) || contains(table.suffix, id); };
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
  for (const std::int32_t id : ids) {
    const std::string_view token = bytes(id);
    if (!skip_special || !table_->special.contains(id)) {
      all.append(token);
    }
  }
  return lossy_utf8(all);
}

std::string_view Tokenizer::bytes(std::int32_t id) const {
  check_id(*table_, id);
  return table_->model.tokens.bytes(id);
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

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string StreamDecoder::push(std::int32_t id) {
  const std::string_view token = tokenizer_.bytes(id);
  if (!skip_special_ || !tokenizer_.is_special(id)) {
    pending_.append(token);
  }
  const std::size_t certain = certain_prefix(pending_);
  const std::string text = lossy_utf8(std::string_view(pending_).substr(0, certain));
  pending_.erase(0, certain);
  return text;
}

std::string StreamDecoder::finish() {
  return lossy_utf8(std::exchange(pending_, ""));
}

}  // namespace caravan::tokenizer
