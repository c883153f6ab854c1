// What assemble() and to_tokenizer_json() both read out of parts.
#pragma once

#include <string>
#include <vector>

#include "caravan/tokenizer/parts.h"

namespace caravan::tokenizer {

// Throws UnsupportedError for a name that no form has.
const PreTokenizerForm& form_named(const std::string& name, const std::string& source);

// The vocabulary of "llama" with its kinds: files of 2023 may lack them, then bytes go by their names, and the unknown
// token by its id.
std::vector<VocabularyEntry> pieces_of(const TokenizerParts& parts);

bool has_kind(const std::vector<VocabularyEntry>& entries, TokenKind kind);

}  // namespace caravan::tokenizer
