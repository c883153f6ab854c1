// Fills a tokenizer's tables from a vocabulary of spellings, whoever wrote it: every id once, every merge of tokens that
// are there.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "caravan/tokenizer/added_tokens.h"
#include "caravan/tokenizer/table.h"

namespace caravan::tokenizer {

// Ids beyond are refused: a table of them would be larger than any vocabulary's file.
inline constexpr std::int32_t kMaxId = (1 << 22) - 1;
inline constexpr std::size_t kMaxTokenBytes = 65536;
inline constexpr std::size_t kMaxAddedTokens = 100'000;
inline constexpr std::size_t kMaxAddedTokenBytes = 1024;

// The token as messages show it.
std::string shown_token(std::string_view token);

// Spellings and their ids, each spelling once.
class SpellingTable {
 public:
  void reserve(std::size_t count);
  // False when it is there.
  bool add(std::string_view spelling, std::int32_t id);
  std::optional<std::int32_t> find(std::string_view spelling) const;
  std::size_t size() const { return spellings_.size(); }
  // In the order in which they were added.
  std::string_view spelling(std::size_t place) const {
    return std::string_view(arena_).substr(spellings_[place].offset, spellings_[place].length);
  }
  std::int32_t id(std::size_t place) const { return spellings_[place].id; }
  std::optional<std::size_t> place_of(std::string_view spelling) const;

 private:
  struct Spelling {
    std::size_t offset = 0;
    std::uint32_t length = 0;
    std::int32_t id = 0;
  };
  struct Slot {
    std::uint32_t tag = 0;    // of the hash
    std::uint32_t place = 0;  // in spellings_, plus one; 0: free
  };
  std::string arena_;
  std::vector<Spelling> spellings_;
  std::vector<Slot> slots_ = std::vector<Slot>(2);
};

// All throw FormatError; `source` opens the message.
class VocabularyBuilder {
 public:
  // table.model.symbols says how tokens are spelled; byte_ids are cleared.
  VocabularyBuilder(Tokenizer::Table& table, const std::string& source);

  void reserve(std::size_t tokens, std::size_t merges);
  // `plain`: the token is neither merged nor found by what it spells; it is text as it stands.
  void add(std::string_view spelling, std::int32_t id, bool plain = false);
  // The next merge; "#version" lines of merges.txt are passed over.
  void add_merge(std::string_view line);
  void add_merge(std::string_view left, std::string_view right);
  // To be called after the last merge.
  void finish_merges();

  // A token beside the vocabulary, or one of its own that is cut out of the text first.  A new one must have an id that
  // no other has.
  void add_token(const AddedToken& token);

  std::optional<std::int32_t> find(std::string_view spelling) const;
  std::size_t size() const { return ids_.size(); }

 private:
  [[noreturn]] void broken(const std::string& what) const;
  std::int32_t merged_id(std::string_view token) const;
  std::int32_t id_of_both(std::string_view left, std::string_view right);

  Tokenizer::Table& table_;
  const std::string& source_;
  SpellingTable ids_;
  std::size_t last_merged_ = 0;  // place in ids_
  std::string both_;
  std::uint32_t rank_ = 0;
  bool merges_over_space_ = false;
  std::unordered_set<std::int32_t> merged_;  // ids that are half of a merge
  std::shared_ptr<PairCuts> cuts_;           // over characters
};

}  // namespace caravan::tokenizer
