// What a loaded tokenizer is made of.  Immutable once parsed, so that threads share it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "caravan/tokenizer/added_tokens.h"
#include "caravan/tokenizer/bpe.h"
#include "caravan/tokenizer/decoder.h"
#include "caravan/tokenizer/normalizer.h"
#include "caravan/tokenizer/piece_cache.h"
#include "caravan/tokenizer/piece_encoder.h"
#include "caravan/tokenizer/sentencepiece.h"
#include "caravan/tokenizer/tokenizer.h"

namespace caravan::tokenizer {

struct Tokenizer::Table {
  AddedTokenFinder raw_added;  // looked for in the text as it is
  // What lies between these goes either through `pieces`, which has a normaliser of its own and merges with `model`, or
  // through the rest of these.
  std::unique_ptr<const SentencePieceModel> pieces;
  bool prefixes_every_stretch = true;  // of pieces: the dummy prefix also behind an added token
  std::vector<NormalizerStep> normalizer;
  AddedTokenFinder normalized_added;  // looked for in the normalised text
  std::vector<SplitStep> steps;

  // A space of the text stands for U+2581 and nothing else happens to it, so that it is merged as it is, without a copy;
  // finish() finds out.
  bool spaced = false;

  BpeModel model;  // its tokens are all there are, whatever encodes
  DecodeRules decoder;
  TokenTable shown;                  // the bytes each token stands for, where they are not the model's own
  std::vector<std::int32_t> prefix;  // of the template
  std::vector<std::int32_t> suffix;

  std::unordered_map<std::string, std::int32_t> odd_ids;  // tokens that model.tokens.find does not know, as spelled
  std::unordered_set<std::int32_t> special;

  std::optional<std::int32_t> bos;
  std::optional<std::int32_t> eos;
  std::optional<std::int32_t> pad;
  bool add_bos = true;  // to documents
  bool add_eos = true;
  std::string fingerprint;

  // The one thing that changes: what calls remember of the pieces they met.
  mutable PieceCaches caches;

  // The vocabulary spells bytes in GPT-2's alphabet.
  bool byte_level() const { return model.symbols == BpeModel::Symbols::kBytes; }
  std::optional<std::int32_t> id_of(std::string_view token) const;
  // To be called once, when all tokens are there: makes what bytes() needs.  Throws FormatError, which `source` opens.
  void finish(const std::string& source);
  bool has_plain_spaces() const;
};

}  // namespace caravan::tokenizer
