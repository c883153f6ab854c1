// The kinds of tokenizers, each read into a table.  The content of the file says which it is.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/tokenizer/named_tokens.h"
#include "caravan/tokenizer/table.h"

namespace caravan::tokenizer {

struct TokenizerFiles {
  std::filesystem::path path;
  std::string content;
  // Of the files beside it; empty where there is none.
  std::string config;              // tokenizer_config.json
  std::string special_tokens_map;  // special_tokens_map.json
  std::string added_tokens;        // added_tokens.json
};

// A tokenizer's file, or the one of a directory, and those beside it.  Throws FileError.
TokenizerFiles read_tokenizer_files(const std::filesystem::path& path);

enum class TokenizerFileKind { kJson, kTiktoken, kSentencePiece };

// Told by the content.  Throws FormatError for what is no tokenizer; `source` opens the message.
TokenizerFileKind tokenizer_file_kind(std::string_view content, const std::string& source);

// All throw FormatError for a file that contradicts itself and UnsupportedError naming what Caravan lacks; `source`
// opens every message.  They leave nothing to do but Table::finish().

void read_tokenizer_json(std::string_view text, const std::string& source, const NamedTokens& named,
                         Tokenizer::Table& table);

// A SentencePiece model; named tokens as transformers' LlamaTokenizer adds them.
void read_sentencepiece_model(std::string_view bytes, const std::string& source, const NamedTokens& named,
                              Tokenizer::Table& table);

// The part of it that a GGUF file shares.  `shows_special`: control tokens decode to their text, and not to nothing as
// in SentencePiece itself.  `beside`: further tokens, or other flags of pieces.
void fill_from_pieces(const SentencePieceSpec& spec, const std::string& source, bool shows_special,
                      const std::vector<NamedToken>& beside, Tokenizer::Table& table);

// Lines of a token in base64 and its rank, as tiktoken has them.
void read_tiktoken(std::string_view text, const std::string& source, const NamedTokens& named, Tokenizer::Table& table);
bool looks_like_tiktoken(std::string_view text);

}  // namespace caravan::tokenizer
