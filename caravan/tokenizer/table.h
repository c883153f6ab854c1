// What a loaded tokenizer is made of.  Immutable once parsed, so that threads share it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "caravan/tokenizer/added_tokens.h"
#include "caravan/tokenizer/bpe.h"
#include "caravan/tokenizer/pattern.h"
#include "caravan/tokenizer/split.h"
#include "caravan/tokenizer/tokenizer.h"
#include "caravan/tokenizer/unicode.h"

namespace caravan::tokenizer {

// One step of the pre-tokenizer: every piece so far is taken apart further.
struct SplitStep {
  enum class Kind { kGpt2, kLlama3, kPattern, kPrefixSpace };
  Kind kind = Kind::kGpt2;  // kPrefixSpace: a piece that does not begin with a space gets one
  int digits = 3;           // of kLlama3
  std::optional<Pattern> pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what lies between matches counts as the matches
};

struct Tokenizer::Table {
  std::vector<NormalForm> normal_forms;
  AddedTokenFinder raw_added;         // looked for in the text as it is
  AddedTokenFinder normalized_added;  // looked for in the normalised text
  std::vector<SplitStep> steps;
  BpeModel model;
  std::vector<std::int32_t> prefix;  // of the post-processor's template
  std::vector<std::int32_t> suffix;

  std::unordered_map<std::string, std::int32_t> odd_ids;  // tokens that model.tokens.find does not know, as spelled
  std::unordered_set<std::int32_t> special;

  std::optional<std::int32_t> bos;
  std::optional<std::int32_t> eos;
  std::optional<std::int32_t> pad;
  bool add_bos = true;  // of tokenizer_config.json
  bool add_eos = true;
  std::string fingerprint;

  std::optional<std::int32_t> id_of(std::string_view token) const;
};

}  // namespace caravan::tokenizer
