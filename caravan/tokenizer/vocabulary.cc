#include "caravan/tokenizer/vocabulary.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/byte_alphabet.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

std::string shown_token(std::string_view token) {
  return fmt::format("\"{}\"", printable(token, 60));
}

void SpellingTable::reserve(std::size_t count) {
  spellings_.reserve(count);
  std::size_t size = slots_.size();
  while (size < count * 2) {
    size *= 2;
  }
  if (size == slots_.size()) {
    return;
  }
  slots_.assign(size, Slot{});
  for (std::size_t place = 0; place < spellings_.size(); ++place) {
    const std::string_view known = spelling(place);
    const std::uint64_t hash = XXH3_64bits(known.data(), known.size());
    std::size_t i = hash & (size - 1);
    while (slots_[i].place != 0) {
      i = (i + 1) & (size - 1);
    }
    slots_[i] = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::uint32_t>(place + 1)};
  }
}

bool SpellingTable::add(std::string_view wanted, std::int32_t id) {
  if ((spellings_.size() + 1) * 2 > slots_.size()) {
    reserve(spellings_.size() * 2 + 2);
  }
  const std::uint64_t hash = XXH3_64bits(wanted.data(), wanted.size());
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  std::size_t i = hash & (slots_.size() - 1);
  for (; slots_[i].place != 0; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].tag == tag && spelling(slots_[i].place - 1) == wanted) {
      return false;
    }
  }
  slots_[i] = {tag, static_cast<std::uint32_t>(spellings_.size() + 1)};
  spellings_.push_back({arena_.size(), static_cast<std::uint32_t>(wanted.size()), id});
  arena_.append(wanted);
  return true;
}

std::optional<std::size_t> SpellingTable::place_of(std::string_view wanted) const {
  const std::uint64_t hash = XXH3_64bits(wanted.data(), wanted.size());
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  for (std::size_t i = hash & (slots_.size() - 1); slots_[i].place != 0; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].tag == tag && spelling(slots_[i].place - 1) == wanted) {
      return slots_[i].place - 1;
    }
  }
  return std::nullopt;
}

std::optional<std::int32_t> SpellingTable::find(std::string_view wanted) const {
  const auto place = place_of(wanted);
  return place ? std::optional(spellings_[*place].id) : std::nullopt;
}

VocabularyBuilder::VocabularyBuilder(Tokenizer::Table& table, const std::string& source)
    : table_(table), source_(source) {
  table_.model.byte_ids.fill(-1);
  if (!table.byte_level()) {
    cuts_ = std::make_shared<PairCuts>();
  }
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
  if (!ids_.add(spelling, id)) {
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

std::int32_t VocabularyBuilder::merged_id(std::string_view token) const {
  const auto found = ids_.find(token);
  if (!found) {
    broken(fmt::format("merge {} names {}, which is not in the vocabulary", grouped(rank_), shown_token(token)));
  }
  return *found;
}

// Vocabularies name tokens in the order of merges, so that it is mostly the one before or the next.
std::int32_t VocabularyBuilder::id_of_both(std::string_view left, std::string_view right) {
  for (std::size_t place = last_merged_; place < ids_.size() && place <= last_merged_ + 1; ++place) {
    const std::string_view spelling = ids_.spelling(place);
    if (spelling.size() == left.size() + right.size() && spelling.starts_with(left) && spelling.ends_with(right)) {
      last_merged_ = place;
      return ids_.id(place);
    }
  }
  both_.assign(left).append(right);
  const std::int32_t id = merged_id(both_);
  last_merged_ = ids_.place_of(both_).value_or(0);
  return id;
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
  const std::int32_t left_id = merged_id(left);
  const std::int32_t right_id = merged_id(right);
  table_.model.merges.put(left_id, right_id, {rank_, id_of_both(left, right)});
  if (cuts_) {
    const std::string both = std::string(left).append(right);
    merges_over_space_ = merges_over_space_ || holds_inner_space(both);
    cuts_->keep_together(with_plain_spaces(both));
    merged_.insert({left_id, right_id});
  }
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
  // Symbols are what the text spells, but for bytes and unknowns: these must not be merged.  And an unknown must not wait
  // for what follows.
  const auto is_merged = [this](std::int32_t id) { return merged_.contains(id); };
  const bool in_order = model.byte_fallback ? all_bytes : model.unknown >= 0 && !model.fuse_unknown;
  if (in_order && !model.ignore_merges && !is_merged(model.unknown) &&
      std::none_of(model.byte_ids.begin(), model.byte_ids.end(), is_merged)) {
    cuts_->finish();
    model.cuts = cuts_;
  }
}

void VocabularyBuilder::add_token(const AddedToken& token) {
  const std::string shown = "the added token " + shown_token(token.content);
  if (token.content.size() > kMaxAddedTokenBytes) {
    broken(shown + " is too long");
  }
  const bool in_vocabulary = ids_.find(token.content).has_value();
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
  return ids_.find(spelling);
}

}  // namespace caravan::tokenizer
