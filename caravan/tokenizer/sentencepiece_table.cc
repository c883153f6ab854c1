// A table around a SentencePiece model: which of its pieces are special, and what a directory says beside it.
#include <fmt/core.h>

#include <unordered_map>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/readers.h"
#include "caravan/tokenizer/vocabulary.h"

namespace caravan::tokenizer {

namespace {

bool is_special(TokenKind kind) {
  return kind == TokenKind::kControl || kind == TokenKind::kUnknown;
}

bool is_control_piece(const SentencePieceSpec& spec, std::int32_t id) {
  const auto place = static_cast<std::size_t>(id);
  return place < spec.pieces.size() && spec.pieces[place].kind == TokenKind::kControl;
}

PieceRole role_of(TokenKind kind, bool shows_special) {
  switch (kind) {
    case TokenKind::kControl:
      return shows_special ? PieceRole::kPlain : PieceRole::kControl;
    case TokenKind::kUnknown:
      return shows_special ? PieceRole::kPlain : PieceRole::kUnknown;
    case TokenKind::kByte:
      return PieceRole::kByte;
    default:
      return PieceRole::kText;
  }
}

// Tokens that are cut out of the text, each once.
class AddedTokens {
 public:
  void put(const AddedToken& token) {
    const auto [place, is_new] = places_.emplace(token.id, tokens_.size());
    if (is_new) {
      tokens_.push_back(token);
      return;
    }
    AddedToken& same = tokens_[place->second];
    const bool special = same.special || token.special;
    same = token;
    same.special = special;
  }
  const std::vector<AddedToken>& all() const { return tokens_; }

 private:
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::int32_t, std::size_t> places_;
};

// Adds one of the tokens of the files beside; of one that is a piece, only how it is looked for changes.
void add_named(const NamedToken& named, Tokenizer::Table& table, AddedTokens& added) {
  AddedToken token = named.token;
  const auto known = table.id_of(token.content);
  const auto next = static_cast<std::int32_t>(table.model.tokens.size());
  if (!known && next > kMaxId) {
    throw FormatError(fmt::format("{} would be the {}th token, and at most {} are supported", named.where,
                                  grouped(std::int64_t{next} + 1), grouped(std::int64_t{kMaxId} + 1)));
  }
  token.id = known.value_or(next);
  if (!known) {
    table.model.tokens.put(token.id, token.content, /*searchable=*/false);
    table.odd_ids.emplace(token.content, token.id);
    table.decoder.roles.push_back(PieceRole::kPlain);
  }
  added.put(token);
}

}  // namespace

void fill_from_pieces(const SentencePieceSpec& spec, const std::string& source, bool shows_special,
                      const std::vector<NamedToken>& beside, Tokenizer::Table& table) {
  table.pieces = std::make_unique<const SentencePieceModel>(spec, source, table.model);
  table.model.tokens.index();
  table.decoder.kind = DecodeRules::Kind::kPieces;
  table.decoder.unknown_text = spec.unknown_surface;
  table.decoder.drops_first_space = spec.add_dummy_prefix;
  table.decoder.drops_leading_spaces = spec.remove_extra_whitespaces;
  AddedTokens added;
  for (std::size_t i = 0; i < spec.pieces.size(); ++i) {
    const VocabularyEntry& piece = spec.pieces[i];
    table.decoder.roles.push_back(role_of(piece.kind, shows_special));
    if (is_special(piece.kind)) {
      added.put({.id = static_cast<std::int32_t>(i), .content = std::string(piece.text), .special = true});
    }
  }
  for (const NamedToken& named : beside) {
    add_named(named, table, added);
  }
  if (added.all().size() > kMaxAddedTokens) {
    throw FormatError(fmt::format("{}: there are {} control tokens, and at most {} are supported", source,
                                  grouped(static_cast<std::int64_t>(added.all().size())), grouped(kMaxAddedTokens)));
  }
  for (const AddedToken& token : added.all()) {
    table.raw_added.add(token.content, token);
    if (token.special) {
      table.special.insert(token.id);
      if (shows_special) {
        table.decoder.roles[static_cast<std::size_t>(token.id)] = PieceRole::kPlain;
      }
    }
  }
}

void read_sentencepiece_model(std::string_view bytes, const std::string& source, const NamedTokens& named,
                              Tokenizer::Table& table) {
  SentencePieceSpec spec = read_sentencepiece(bytes, source);
  if (named.present) {
    spec.add_dummy_prefix = spec.add_dummy_prefix && named.add_prefix_space;
  }
  std::vector<NamedToken> beside = named.numbered;
  beside.insert(beside.end(), named.special.begin(), named.special.end());
  fill_from_pieces(spec, source, /*shows_special=*/named.present, beside, table);
  for (const NamedToken& one : named.numbered) {
    const auto got = table.id_of(one.token.content);
    if (got != one.token.id) {
      throw FormatError(fmt::format("{}: transformers would give {} the id {}", one.where,
                                    shown_token(one.token.content), got.value_or(-1)));
    }
  }
  table.prefixes_every_stretch = !named.present || named.legacy;
  const auto id = [&](const std::optional<NamedToken>& token, const std::string& otherwise) {
    const auto found = table.id_of(token ? token->token.content : otherwise);
    const bool is_control = found && (token || is_control_piece(spec, *found));
    return is_control ? found : std::nullopt;
  };
  table.bos = id(named.bos, spec.bos_piece);
  table.eos = id(named.eos, spec.eos_piece);
  table.pad = id(named.pad, spec.pad_piece);
  table.add_bos = named.add_bos.value_or(true);
  table.add_eos = named.add_eos.value_or(true);
  if (table.bos && table.add_bos) {
    table.prefix.push_back(*table.bos);
  }
  if (table.eos && named.add_eos.value_or(false)) {
    table.suffix.push_back(*table.eos);
  }
}

}  // namespace caravan::tokenizer
