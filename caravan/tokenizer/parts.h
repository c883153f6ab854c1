// A tokenizer from parts that are in memory: what a GGUF file holds in its keys tokenizer.ggml.*.
//
//   TokenizerParts parts;
//   parts.model = "llama";                                       // tokenizer.ggml.model
//   parts.vocabulary = {{"<unk>", 0, TokenKind::kUnknown}, ...};  // .tokens, .scores, .token_type; the place is the id
//   parts.bos = 1;                                               // .bos_token_id, when the file has it
//   Tokenizer tokenizer = Tokenizer::assemble(parts, "model.gguf");
//   std::string json = to_tokenizer_json(parts, "model.gguf");   // the same for Hugging Face's libraries
//
// What llama.cpp makes of the same keys, with these differences, in which the model's own tokenizer is followed:
// merging never makes a control token out of plain text, and patterns see Unicode 16 as elsewhere in Caravan.
//
//   model "gpt2"    byte-level BPE: tokens in GPT-2's byte alphabet (control and user-defined ones as plain text),
//                   merges, and `pre`, the name of the pattern that cuts text into words:
//
//     gpt-2 gpt2 phi-2 olmo mpt jais                   GPT-2's
//     smollm starcoder refact command-r codeshell      single digits, then GPT-2's
//     llama-bpe llama3 llama-v3 pixtral                Llama 3's; a word that is a token as it stands is not merged
//     dbrx smaug-bpe                                   Llama 3's, merged always
//     qwen2 stablelm2 deepseek-r1-qwen megrez          Qwen 2's: Llama 3's with single digits
//     llama4 gpt-4o                                    GPT-4o's; a word that is a token as it stands is not merged
//     tekken                                           Mistral's: GPT-4o's without contractions, single digits; a word
//                                                      that is a token as it stands is not merged
//     default, or empty                                llama.cpp's: punctuation, GPT-2's, numbers, three digits
//
//   model "llama"   SentencePiece BPE by scores; `pre` is not looked at.  With add_space_prefix every stretch of text
//                   between control tokens begins with a space, as in llama.cpp.
//
// Control and unknown tokens are special: EncodeOptions::plain takes them for text, skip_special leaves them out.
// User-defined ones are always cut out of the text whole, and are text.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/tokenizer/tokenizer.h"

namespace caravan::tokenizer {

// With the numbers of SentencePiece and of tokenizer.ggml.token_type.
enum class TokenKind : std::uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct VocabularyEntry {
  std::string_view text;
  float score = 0;  // of "llama": the larger goes first
  TokenKind kind = TokenKind::kNormal;
};

struct TokenizerParts {
  std::string model;  // "gpt2" or "llama"
  std::string pre;
  std::vector<VocabularyEntry> vocabulary;
  std::vector<std::string_view> merges;  // of "gpt2": "a b", the first goes first
  // Ids that the file names.  None: the tokenizer has no such token; nothing is assumed in its place.
  std::optional<std::int32_t> bos;
  std::optional<std::int32_t> eos;
  std::optional<std::int32_t> pad;
  std::optional<std::int32_t> unknown;  // of "llama", where no token is of that kind; none: token 0
  // None: as llama.cpp does, BOS for "llama" and the names llama-bpe, llama3, llama-v3, pixtral and tekken, no EOS, and
  // a space for "llama".
  std::optional<bool> add_bos;
  std::optional<bool> add_eos;
  std::optional<bool> add_space_prefix;  // of "llama"
};

// What names of tokenizer.ggml.pre stand for, in the words of tokenizer.json: text is cut by the steps in their order,
// then its bytes are merged.
struct PreTokenizerForm {
  std::vector<std::string_view> names;     // the usual one first
  bool single_digits = false;              // a Digits step that takes each number by itself
  std::vector<std::string_view> patterns;  // of Split steps that isolate; none: the ByteLevel step's own, GPT-2's
  bool ignore_merges = false;              // a word that is a token as it stands is not merged
  bool adds_bos = false;                   // where the file does not say
};

// All that are known, each name once.
const std::vector<PreTokenizerForm>& pre_tokenizer_forms();

// A tokenizer.json with the ids and texts of assemble(), as the models' makers publish it: byte-level BPE for "gpt2", BPE
// with byte fallback as Llama 2's for "llama".  Of "llama" two things differ: pairs of equal score that overlap are merged
// in the order of their parts' lengths and not from left to right, and behind a user-defined token a text begins with a
// space too (as in llama.cpp).  Ids of empty and unused tokens stay free.
// Throws what assemble() throws, and UnsupportedError for pieces that a tokenizer.json cannot say: unused ones that
// merges make, characters that are no pieces themselves, user-defined ones with a space where texts get one too.
std::string to_tokenizer_json(const TokenizerParts& parts, const std::string& source);

// Parts of a file, and what they are views of.
struct FileParts {
  TokenizerParts parts;
  std::deque<std::string> texts;
  std::vector<std::string> notes;  // a sentence for each thing that parts have no word for
};

// The parts of a tokenizer.model of SentencePiece or tiktoken with the files beside it, as Tokenizer::load() reads them:
// what assemble() gives the same ids for, where no note says otherwise.
//   SentencePiece   "llama"; tokens beside the model behind its pieces, with the score -1000 (llama.cpp's converter)
//   tiktoken        "gpt2" with the name of Llama 3's or 4's pattern; a token's merges are all its parts in two tokens,
//                   in the order of the token's rank, then of the parts' (transformers' TikTokenConverter)
// Throws what load() throws, and UnsupportedError for a unigram model and for a tokenizer.json.
FileParts parts_of_file(const std::filesystem::path& path);

}  // namespace caravan::tokenizer
