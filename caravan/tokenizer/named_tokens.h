// Which tokens are BOS, EOS and the like, and which stand beside a vocabulary: what transformers keeps in files of their
// own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/tokenizer/added_tokens.h"

namespace caravan::tokenizer {

// The texts of the files beside a tokenizer; empty where there is none.
struct FilesBeside {
  std::string_view config;              // tokenizer_config.json
  std::string_view special_tokens_map;  // special_tokens_map.json
  std::string_view added_tokens;        // added_tokens.json
};

struct NamedToken {
  AddedToken token;   // special, and found as it stands, unless the file says otherwise; the id is not known here
  std::string where;  // "dir/tokenizer_config.json: bos_token", for messages
};

struct NamedTokens {
  bool present = false;  // one of the files is there
  std::optional<NamedToken> bos;
  std::optional<NamedToken> eos;
  std::optional<NamedToken> pad;
  // With an id: added_tokens_decoder of tokenizer_config.json or, where it has none, added_tokens.json; by id.
  std::vector<NamedToken> numbered;
  // All special tokens that are named, these three included, in the order in which transformers adds them.
  std::vector<NamedToken> special;
  std::optional<bool> add_bos;  // add_bos_token
  std::optional<bool> add_eos;
  bool legacy = false;  // of LlamaTokenizer: every stretch of text begins with a space
  bool add_prefix_space = true;
};

// What tokenizer_config.json says; special_tokens_map.json, whose names go before the first's where that has no
// added_tokens_decoder; added_tokens.json under the same condition (transformers 5).  `folder` ends in a slash or is
// empty, and opens messages.  Throws FormatError.
NamedTokens read_named_tokens(const FilesBeside& files, const std::string& folder);

}  // namespace caravan::tokenizer
