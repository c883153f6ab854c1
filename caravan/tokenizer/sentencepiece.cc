#include "caravan/tokenizer/sentencepiece.h"

#include <fmt/core.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/decoder.h"
#include "caravan/tokenizer/normalizer.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kMaxPieces = std::size_t{1} << 22;
constexpr std::size_t kMaxPieceBytes = 512;
// How much a vocabulary may ask for: pieces that are sums of other pieces in all their places are no language's.
constexpr std::size_t kMaxMerges = std::size_t{1} << 21;
constexpr std::size_t kMaxComparedBytes = std::size_t{1} << 28;

std::string shown(const VocabularyEntry& piece, std::size_t place) {
  return fmt::format("piece {} (\"{}\")", grouped(static_cast<std::int64_t>(place)), printable(piece.text, 60));
}

bool merges(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUnused;
}

bool is_one_character(std::string_view text) {
  return code_point_at(text, 0).length == text.size();
}

// The order of merges: one rank for each score, the largest first.
class Ranks {
 public:
  explicit Ranks(const std::vector<VocabularyEntry>& pieces) {
    for (const VocabularyEntry& piece : pieces) {
      scores_.push_back(piece.score);
    }
    std::sort(scores_.begin(), scores_.end(), std::greater<>());
    scores_.erase(std::unique(scores_.begin(), scores_.end()), scores_.end());
  }
  std::uint32_t of(float score) const {
    return static_cast<std::uint32_t>(std::lower_bound(scores_.begin(), scores_.end(), score, std::greater<>()) -
                                      scores_.begin());
  }

 private:
  std::vector<float> scores_;
};

}  // namespace

SentencePieceModel::SentencePieceModel(const SentencePieceSpec& spec, const std::string& source, BpeModel& model)
    : kind_(spec.kind),
      add_dummy_prefix_(spec.add_dummy_prefix),
      remove_extra_whitespaces_(spec.remove_extra_whitespaces),
      whitespace_as_suffix_(spec.whitespace_as_suffix),
      space_(spec.escape_whitespaces ? kSpaceSymbol : std::string_view(" ")),
      charsmap_(spec.charsmap, source),
      model_(&model) {
  model.symbols = BpeModel::Symbols::kCharacters;
  model.byte_fallback = spec.byte_fallback;
  model.byte_ids.fill(-1);
  read_pieces(spec, source);
  if (spec.byte_fallback) {
    check_bytes(source);
  }
  if (kind_ == SentencePieceSpec::Kind::kBpe) {
    read_merges(spec, source);
  } else {
    read_scores(spec);
  }
}

void SentencePieceModel::read_pieces(const SentencePieceSpec& spec, const std::string& source) {
  const auto refuse = [&](const std::string& what) { throw FormatError(fmt::format("{}: {}", source, what)); };
  if (spec.pieces.empty() || spec.pieces.size() > kMaxPieces) {
    refuse(fmt::format("the vocabulary has {} pieces; from 1 to {} are expected",
                       grouped(static_cast<std::int64_t>(spec.pieces.size())), grouped(kMaxPieces)));
  }
  std::vector<std::pair<std::string_view, std::int32_t>> user_defined;
  std::unordered_map<std::string_view, std::size_t> seen;
  seen.reserve(spec.pieces.size());
  for (std::size_t i = 0; i < spec.pieces.size(); ++i) {
    const VocabularyEntry& piece = spec.pieces[i];
    const auto id = static_cast<std::int32_t>(i);
    if (piece.text.empty() || piece.text.size() > kMaxPieceBytes || first_invalid_byte(piece.text)) {
      refuse(fmt::format("{} is not from 1 to {} bytes of UTF-8", shown(piece, i), kMaxPieceBytes));
    }
    if (!std::isfinite(piece.score)) {
      refuse(fmt::format("the score of {} is not finite", shown(piece, i)));
    }
    if (const auto [place, is_new] = seen.emplace(piece.text, i); !is_new) {
      refuse(fmt::format("{} is piece {} again", shown(piece, i), place->second));
    }
    if (piece.kind == TokenKind::kUnknown) {
      if (model_->unknown >= 0) {
        refuse(fmt::format("{} is a second unknown token, after piece {}", shown(piece, i), model_->unknown));
      }
      model_->unknown = id;
    } else if (piece.kind == TokenKind::kUserDefined) {
      user_defined.emplace_back(piece.text, id);
    } else if (piece.kind == TokenKind::kByte) {
      const auto byte = byte_named_by(piece.text);
      if (!byte || piece.text != fmt::format("<0x{:02X}>", *byte)) {
        refuse(fmt::format("{} is of the kind byte and is not named like <0x0A>", shown(piece, i)));
      }
      if (!spec.byte_fallback) {
        refuse(fmt::format("{} is of the kind byte, but the model does not fall back to bytes", shown(piece, i)));
      }
      model_->byte_ids[*byte] = id;
    }
    // Converters have put a zero byte beside <0x00>, which is the same.
    const bool is_zero =
        piece.text == std::string_view("\0", 1) && (spec.byte_fallback || piece.kind == TokenKind::kUnused);
    if (!is_zero && piece.text.find('\0') != std::string_view::npos) {
      refuse(fmt::format("{} holds a zero byte", shown(piece, i)));
    }
    kinds_.push_back(is_zero ? TokenKind::kControl : piece.kind);
    has_unused_ = has_unused_ || kinds_.back() == TokenKind::kUnused;
    model_->tokens.put(id, piece.text, /*searchable=*/true);
  }
  if (model_->unknown < 0 && !spec.byte_fallback) {
    refuse("the vocabulary has no unknown token");
  }
  user_defined_ = ByteTrie(std::move(user_defined));
}

void SentencePieceModel::check_bytes(const std::string& source) const {
  for (int byte = 0; byte < 256; ++byte) {
    if (model_->byte_ids[static_cast<std::size_t>(byte)] < 0) {
      throw FormatError(
          fmt::format("{}: the model falls back to bytes, but its vocabulary lacks <0x{:02X}>", source, byte));
    }
  }
}

// Two neighbours merge when their texts together are a piece.  So every piece is taken apart in every way that leaves
// two symbols: pieces, or single characters, which need not be pieces.
void SentencePieceModel::read_merges(const SentencePieceSpec& spec, const std::string& source) {
  const Ranks ranks(spec.pieces);
  std::unordered_map<std::string_view, std::int32_t> symbols;
  symbols.reserve(spec.pieces.size());
  for (std::size_t i = 0; i < spec.pieces.size(); ++i) {
    const VocabularyEntry& piece = spec.pieces[i];
    if (merges(kinds_[i])) {
      symbols.emplace(piece.text, static_cast<std::int32_t>(i));
      if (is_one_character(piece.text)) {
        model_->characters.put(code_point_at(piece.text, 0).value, static_cast<std::int32_t>(i));
      }
    }
  }
  model_->cut_before_space = !has_unused_;
  const auto cuts = std::make_shared<PairCuts>();
  for (std::size_t i = 0; i < spec.pieces.size(); ++i) {
    const VocabularyEntry& piece = spec.pieces[i];
    if (!merges(kinds_[i]) || is_one_character(piece.text)) {
      continue;
    }
    model_->cut_before_space = model_->cut_before_space && !holds_inner_space(piece.text);
    cuts->keep_together(with_plain_spaces(piece.text));
    for (std::size_t at = 0; at < piece.text.size();) {
      const CodePoint character = code_point_at(piece.text, at);
      if (model_->characters.find(character.value) < 0) {
        const auto id = static_cast<std::int32_t>(spec.pieces.size() + bare_characters_.size());
        model_->characters.put(character.value, id);
        bare_characters_.push_back(character.value);
      }
      at += character.length;
    }
  }
  cuts->finish();
  if (!has_unused_) {
    model_->cuts = cuts;
  }
  const auto symbol = [&](std::string_view text) {
    if (is_one_character(text)) {
      return model_->characters.find(code_point_at(text, 0).value);
    }
    const auto found = symbols.find(text);
    return found == symbols.end() ? -1 : found->second;
  };
  std::size_t compared = 0;
  std::size_t count = 0;
  for (std::size_t i = 0; i < spec.pieces.size(); ++i) {
    const std::string_view text = spec.pieces[i].text;
    if (!merges(kinds_[i])) {
      continue;
    }
    const std::uint32_t rank = ranks.of(spec.pieces[i].score);
    for (std::size_t at = code_point_at(text, 0).length; at < text.size(); at += code_point_at(text, at).length) {
      compared += text.size();
      const std::int32_t left = symbol(text.substr(0, at));
      const std::int32_t right = left >= 0 ? symbol(text.substr(at)) : -1;
      if (right >= 0) {
        model_->merges.put(left, right, {rank, static_cast<std::int32_t>(i)});
        ++count;
      }
    }
    if (count > kMaxMerges || compared > kMaxComparedBytes) {
      throw FormatError(fmt::format("{}: the pieces are made of each other in more than {} ways", source,
                                    grouped(static_cast<std::int64_t>(count))));
    }
  }
}

void SentencePieceModel::read_scores(const SentencePieceSpec& spec) {
  least_ = FLT_MAX;
  std::vector<std::pair<std::string_view, std::int32_t>> pieces;
  for (std::size_t i = 0; i < spec.pieces.size(); ++i) {
    const VocabularyEntry& piece = spec.pieces[i];
    scores_.push_back(piece.score);
    if (kinds_[i] == TokenKind::kNormal) {
      least_ = std::min(least_, piece.score);
    }
    if (kinds_[i] == TokenKind::kNormal || kinds_[i] == TokenKind::kUserDefined) {
      pieces.emplace_back(piece.text, static_cast<std::int32_t>(i));
    }
  }
  pieces_ = ByteTrie(std::move(pieces));
}

std::pair<std::string_view, std::size_t> SentencePieceModel::normalized_prefix(std::string_view text,
                                                                               std::size_t at) const {
  if (!user_defined_.empty()) {
    if (const std::size_t length = user_defined_.longest(text, at).second; length > 0) {
      return {text.substr(at, length), length};
    }
  }
  if (!charsmap_.empty()) {
    if (const auto found = charsmap_.longest(text, at)) {
      return *found;
    }
  }
  const std::size_t length = character_length_at(text, at);
  return length > 0 ? std::pair(text.substr(at, length), length) : std::pair(kReplacementCharacter, std::size_t{1});
}

std::string SentencePieceModel::normalize(std::string_view text, bool begins, std::string_view space) const {
  const std::size_t limit = growth_limit(text.size());
  std::string result;
  result.reserve(text.size() + text.size() / 2 + 2 * space.size());
  std::size_t at = 0;
  while (remove_extra_whitespaces_ && at < text.size()) {
    const auto [piece, used] = normalized_prefix(text, at);
    if (piece != " ") {
      break;
    }
    at += used;
  }
  if (at == text.size()) {
    return result;
  }
  const std::string_view prefix = begins && add_dummy_prefix_ ? space : std::string_view();
  if (!whitespace_as_suffix_) {
    result.append(prefix);
  }
  bool after_space = remove_extra_whitespaces_;
  while (at < text.size()) {
    auto [piece, used] = normalized_prefix(text, at);
    at += used;
    while (after_space && piece.starts_with(' ')) {
      piece.remove_prefix(1);
    }
    if (piece.empty()) {
      continue;
    }
    for (const char byte : piece) {
      if (byte == ' ') {
        result.append(space);
      } else {
        result += byte;
      }
    }
    after_space = remove_extra_whitespaces_ && piece.ends_with(' ');
    if (result.size() > limit) {
      refuse_growth(text.size());
    }
  }
  // U+2581 of the text is no other than that of a space.
  while (remove_extra_whitespaces_ && (result.ends_with(space) || result.ends_with(space_))) {
    result.resize(result.size() - (result.ends_with(space) ? space.size() : space_.size()));
  }
  if (whitespace_as_suffix_) {
    result.append(prefix);
  }
  return result;
}

}  // namespace caravan::tokenizer
