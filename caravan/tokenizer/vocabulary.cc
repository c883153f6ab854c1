#include "caravan/tokenizer/vocabulary.h"

#include <fmt/core.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/byte_alphabet.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

std::string shown_token(std::string_view token) {
  return fmt::format("\"{}\"", printable(token, 60));
}

VocabularyBuilder::VocabularyBuilder(Tokenizer::Table& table, const std::string& source)
    : table_(table), source_(source) {
  table_.model.byte_ids.fill(-1);
}

void VocabularyBuilder::broken(const std::string& what) const {
  throw FormatError(fmt::format("{}: {}", source_, what));
}

void VocabularyBuilder::reserve(std::size_t tokens, std::size_t merges) {
  ids_.reserve(tokens);
  table_.model.merges.reserve(merges);
}

void VocabularyBuilder::add(std::string_view spelling, std::int32_t id, bool plain) {
  BpeModel& model = table_.model;
  const auto token = [&] { return "the token " + shown_token(spelling); };
  if (id < 0 || id > kMaxId) {
    broken(fmt::format("the id of {} is not a whole number from 0 to {}", token(), grouped(kMaxId)));
  }
  if (spelling.size() > kMaxTokenBytes) {
    broken(token() + " is too long");
  }
  if (model.tokens.has(id)) {
    broken(fmt::format("{} has the id {} of another", token(), id));
  }
  if (!ids_.emplace(spelling, id).second) {
    broken(fmt::format("{} has two ids, of which {} is the second", token(), id));
  }
  if (plain) {
    model.tokens.put(id, spelling, /*searchable=*/false);
    table_.odd_ids.emplace(spelling, id);
    return;
  }
  if (!table_.byte_level()) {
    model.tokens.put(id, spelling, /*searchable=*/true);
    if (!spelling.empty()) {
      if (const CodePoint first = code_point_at(spelling, 0); first.length == spelling.size()) {
        model.characters.put(first.value, id);
      }
    }
    if (const auto byte = byte_named_by(spelling); byte && spelling == fmt::format("<0x{:02X}>", *byte)) {
      model.byte_ids[*byte] = id;
    }
    return;
  }
  const auto bytes = spelled_bytes(spelling);
  model.tokens.put(id, bytes ? *bytes : spelling, bytes.has_value());
  if (!bytes) {
    table_.odd_ids.emplace(spelling, id);
  } else if (bytes->size() == 1) {
    model.byte_ids[static_cast<unsigned char>(bytes->front())] = id;
  }
}

std::int32_t VocabularyBuilder::merged_id(const std::string& token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) {
    broken(fmt::format("merge {} names {}, which is not in the vocabulary", grouped(rank_), shown_token(token)));
  }
  return found->second;
}

void VocabularyBuilder::add_merge(std::string_view line) {
  if (line.starts_with("#version")) {
    return;
  }
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    broken(fmt::format("merge {} is not two tokens with a space between", grouped(rank_)));
  }
  add_merge(line.substr(0, space), line.substr(space + 1));
}

void VocabularyBuilder::add_merge(std::string_view left, std::string_view right) {
  if (left.empty() || right.empty()) {
    // It would merge for ever.
    broken(fmt::format("merge {} has an empty half", grouped(rank_)));
  }
  const std::int32_t left_id = merged_id(std::string(left));
  const std::int32_t right_id = merged_id(std::string(right));
  const std::string both = std::string(left).append(right);
  table_.model.merges.put(left_id, right_id, {rank_, merged_id(both)});
  merges_over_space_ = merges_over_space_ || (!table_.byte_level() && holds_inner_space(both));
  ++rank_;
}

void VocabularyBuilder::finish_merges() {
  BpeModel& model = table_.model;
  if (table_.byte_level()) {
    return;
  }
  // A character that is lost would bring together what a cut keeps apart.
  const bool all_bytes = std::count(model.byte_ids.begin(), model.byte_ids.end(), -1) == 0;
  const bool nothing_lost = model.unknown >= 0 || (model.byte_fallback && all_bytes);
  model.cut_before_space = nothing_lost && !model.ignore_merges && !merges_over_space_ &&
                           model.characters.find(code_point_at(kSpaceSymbol, 0).value) >= 0;
}

void VocabularyBuilder::add_token(const AddedToken& token) {
  const std::string shown = "the added token " + shown_token(token.content);
  if (token.content.size() > kMaxAddedTokenBytes) {
    broken(shown + " is too long");
  }
  const bool in_vocabulary = ids_.contains(token.content);
  const std::string key = token.normalized ? normalize(table_.normalizer, token.content) : token.content;
  // What decode gives is the key, read as the decoder reads every token.
  if (!in_vocabulary || key != token.content) {
    if (!in_vocabulary && (table_.model.tokens.has(token.id) || token.id < 0 || token.id > kMaxId)) {
      broken(shown + " has the id of another token");
    }
    const auto bytes = table_.byte_level() ? spelled_bytes(key) : std::nullopt;
    table_.model.tokens.put(token.id, bytes.value_or(key), /*searchable=*/false);
    table_.odd_ids.insert_or_assign(token.content, token.id);
  }
  if (key.empty()) {
    broken(shown + " is empty once it is normalised");
  }
  AddedTokenFinder& finder = token.normalized ? table_.normalized_added : table_.raw_added;
  if (!finder.add(key, token)) {
    broken(shown + " reads like another one once it is normalised");
  }
  // tokenizers asks whether the text that an id decodes to is a special token's.
  if (token.special && key == token.content) {
    table_.special.insert(token.id);
  }
}

std::optional<std::int32_t> VocabularyBuilder::find(std::string_view spelling) const {
  const auto found = ids_.find(std::string(spelling));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace caravan::tokenizer
