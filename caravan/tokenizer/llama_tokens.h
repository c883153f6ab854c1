// The special tokens of Llama 3 and Llama 4, which stand behind the ranks of tokenizer.model and not in it.
//
// The file alone does not tell them.  The rule: where tokenizer_config.json beside it numbers tokens behind the ranks
// (added_tokens_decoder), these names count.  Else a file of 200,000 ranks is Llama 4's: GPT-4o's pattern and 2,048
// special tokens.  Any other is Llama 3's: its pattern and 256 special tokens, under the names of Llama 3.1 to 3.3.
// Llama 3.0 had the same ids for BOS, EOS, the header's and the turn's end, and only reserved names for the others that
// 3.1 named.
//
// Names and order as in Meta's llama-models (models/llama3/tokenizer.py, models/llama4/tokenizer.py, 2025).  Meta's code
// hands tiktoken 400,000 characters at a time, and runs of spaces or of others in pieces of 25,000; Caravan, like
// tiktoken itself, takes a text whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caravan::tokenizer {

inline constexpr std::int32_t kLlama4Ranks = 200'000;
inline constexpr std::int32_t kMaxReservedTokens = 65'536;

std::vector<std::string> llama3_special_tokens();  // 256
std::vector<std::string> llama4_special_tokens();  // 2,048

}  // namespace caravan::tokenizer
