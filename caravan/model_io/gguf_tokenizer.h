// The tokenizer in a GGUF file's metadata: plain vectors, from and to the file, from and to Hugging Face's files.
//
// Nothing here splits text: these vectors are what tokenizer::Tokenizer::assemble makes a tokenizer of.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/checkpoint/gguf.h"
#include "caravan/tokenizer/parts.h"

namespace caravan::model_io {

using tokenizer::TokenKind;

struct GgufTokenizer {
  std::string model;                // "gpt2": byte-level BPE; "llama": SentencePiece's; others exist
  std::string pre;                  // how text is split before merging: "llama-bpe", "smollm", ...; may be empty
  std::vector<std::string> tokens;  // by id, spelled as the model's kind does
  std::vector<float> scores;        // of "llama": the higher the earlier merged; as many as tokens, or none
  std::vector<TokenKind> kinds;     // as many as tokens, or none
  std::vector<std::string> merges;  // of "gpt2": "left right", in their order
  std::optional<std::int64_t> bos, eos, eot, unk, pad;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
  std::optional<std::string> chat_template;
  // What Caravan adds for itself: the files as they were ("tokenizer.huggingface.json", "caravan.tokenizer_config").
  std::string tokenizer_json;
  std::string tokenizer_config;
};

// The tokenizer of a file, or nothing when its "tokenizer.ggml.model" is missing or says "no_vocab".  Ids outside the tokens count as absent.
// Throws FormatError for values of wrong types, lists of unlike lengths, and kinds that do not exist.
std::optional<GgufTokenizer> read_gguf_tokenizer(const checkpoint::GgufFile& file);

// The metadata that read_gguf_tokenizer reads.
std::vector<checkpoint::GgufEntry> format_gguf_tokenizer(const GgufTokenizer& tokenizer);

// What tokenizer::Tokenizer::assemble takes, as views of these vectors.
tokenizer::TokenizerParts parts_of(const GgufTokenizer& tokenizer);

// Out of the texts of tokenizer.json, tokenizer_config.json and chat_template.jinja (the latter two may be empty), for a
// model of `vocab_size` rows: ids without a token are unused, tokens beyond the rows are left out.  Byte-level BPE, and
// BPE with byte fallback (Llama 2's), are understood; of another kind nothing comes back and `notes` says why, as it does
// of every feature that llama.cpp has no word for.
// Throws FormatError when the files are damaged; `source` opens every message.
std::optional<GgufTokenizer> tokenizer_from_files(std::string_view tokenizer_json, std::string_view tokenizer_config,
                                                  std::string_view chat_template, std::int64_t vocab_size,
                                                  const std::string& source, std::vector<std::string>& notes);

// The same out of a tokenizer.model of SentencePiece or tiktoken (`file`), with the files beside it.
std::optional<GgufTokenizer> tokenizer_from_model_file(const std::filesystem::path& file,
                                                       std::string_view tokenizer_config,
                                                       std::string_view chat_template, std::int64_t vocab_size,
                                                       std::vector<std::string>& notes);

// Hugging Face's files, text by name: tokenizer.json, tokenizer_config.json and, where there is one,
// chat_template.jinja.  Files that the metadata kept come back as they were; others are what
// tokenizer::to_tokenizer_json makes of the vectors.  Where it cannot, a note says why; the template comes in any case.
std::map<std::string, std::string> tokenizer_files(const GgufTokenizer& tokenizer, std::vector<std::string>& notes);

}  // namespace caravan::model_io
