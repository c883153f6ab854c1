// Fills a tokenizer's tables from a vocabulary of spellings, whoever wrote it: every id once, every merge of tokens that
// are there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

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
  std::int32_t merged_id(const std::string& token) const;

  Tokenizer::Table& table_;
  const std::string& source_;
  std::unordered_map<std::string, std::int32_t> ids_;
  std::uint32_t rank_ = 0;
  bool merges_over_space_ = false;
};

}  // namespace caravan::tokenizer
