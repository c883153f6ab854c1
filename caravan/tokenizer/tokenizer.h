// Text to token ids and back.
//
// What a file holds is told by its content, not by its name:
//
//   tokenizer.json      of Hugging Face: the ids of the `tokenizers` library
//   SentencePiece       tokenizer.model of Llama 1 and 2, Mistral: BPE and unigram, the ids of `sentencepiece`
//   tiktoken            tokenizer.model of Llama 3 and 4: the ids of `tiktoken`
//   in memory           what a GGUF file has in its keys: assemble() (parts.h)
//
// What a file asks for and Caravan does not do is refused when it is loaded, with the name of the thing: nothing is
// silently left out.
//
// tokenizer.json
//   normalizer       none, NFC, NFD, NFKC, NFKD, Prepend, Replace, or a sequence of them
//   pre_tokenizer    ByteLevel (GPT-2's pattern, with or without prefix space), Split by a pattern with every behavior,
//                    Digits, Metaspace (today's form and that of 2023), none, or a sequence of them; the patterns of
//                    GPT-2, Llama 3, Qwen 2 and Llama 4 are hand scanners, others run in PCRE2 with limits
//   model            BPE: over bytes where the pre_tokenizer ends with ByteLevel, else over characters with
//                    byte_fallback, unk_token, fuse_unk; ignore_merges; merges as "a b" or ["a", "b"]
//   post_processor   ByteLevel, TemplateProcessing, or a sequence of them
//   decoder          ByteLevel; over characters Replace, ByteFallback, Fuse, Strip, Metaspace; or a sequence of them
//   added_tokens     special or not; lstrip, rstrip, single_word, normalized
//   truncation, padding   not looked at: transformers switches both off
//
// The hand scanners see the letters and numbers of Unicode 16, Digits those of Unicode 17, as `tokenizers` 0.23 and
// `tiktoken` 0.14 do, and normalisation leaves what is younger than Unicode 9 alone, as there.  Other patterns see
// PCRE2's Unicode version (14 in 10.42), and single_word that of utf8proc (15 in 2.8): only for characters that are
// younger can ids differ.
//
// SentencePiece: with EncodeOptions::plain, and without special tokens written in the text anyway, ids are those of
// SentencePieceProcessor::encode, which takes control symbols for text; each stretch between two of them is encoded by
// itself.  BOS is put before a text when the model has one.  Where tokenizer_config.json, special_tokens_map.json or
// added_tokens.json stand beside the file, their tokens are special as transformers' LlamaTokenizer has them: tokens
// that the model lacks are added behind it, add_bos_token and add_eos_token decide about the template, `legacy` says
// whether a text behind a special token begins with a space too, and decode shows special tokens.  (transformers 5
// itself reads the file through merges that it derives, and swallows a space at the beginning of a text; Caravan keeps
// to SentencePiece there.)
//
// tiktoken: llama_tokens.h says which special tokens the file has.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::tokenizer {

struct TokenizerParts;  // parts.h

struct EncodeOptions {
  bool add_special = true;  // apply the template: BOS, EOS
  bool plain = false;       // special tokens written in the text are ordinary text
};

// Bytes begin to end of a text, the last not included.
struct TextRange {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const TextRange&) const = default;
};

struct Encoding {
  std::vector<std::int32_t> ids;
  std::vector<TextRange> ranges;  // as many
};

// The file of a directory that load() reads: tokenizer.json, else tokenizer.model.  Nothing when it holds neither, or is
// no directory.
std::optional<std::filesystem::path> tokenizer_file(const std::filesystem::path& directory);

// A loaded tokenizer.  Copies share one immutable table; any number of threads may use it at once.
class Tokenizer {
 public:
  // A tokenizer's file, or a directory that holds one.  tokenizer_config.json, special_tokens_map.json and
  // added_tokens.json beside it, where there are any, name BOS and EOS and say whether documents get them.
  // Throws FileError when it is missing, FormatError when it is damaged, UnsupportedError naming what Caravan lacks.
  static Tokenizer load(const std::filesystem::path& path);
  // The same from memory; `source` opens every message, the others are the content of the files beside it, or empty.
  static Tokenizer parse(std::string_view content, const std::string& source, std::string_view config = {},
                         std::string_view special_tokens_map = {}, std::string_view added_tokens = {});
  // From the parts that parts.h describes.  `source` opens every message.  Throws FormatError when they contradict each
  // other, UnsupportedError for a kind or a pre-tokenizer that Caravan lacks.
  static Tokenizer assemble(const TokenizerParts& parts, const std::string& source);

  // The ids of a text.  Text must be UTF-8: throws InputError with the offset of the first byte that is not; only a
  // SentencePiece model takes each such byte for U+FFFD, as SentencePiece does.
  // A pattern that runs beyond PCRE2's limits throws InputError.
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // encode(), and for each id the bytes of the text that it stands for.  The ranges follow each other and cover the text;
  // those of the template, and of a space that the tokenizer puts before a text, are empty.  A byte of a character has
  // that byte's range, and a space belongs to the id that spells it (`tokenizers` counts characters and, where a
  // ByteLevel post-processor trims offsets, leaves spaces out).  Throws what encode() throws, InputError for what is not
  // UTF-8, and UnsupportedError for a tokenizer that rewrites the text (NFC and the like) or has no bytes to fall back on.
  Encoding encode_with_ranges(std::string_view text, const EncodeOptions& options = {}) const;

  // The ids of a training document: the template applied, and where the template adds none, BOS before and EOS after
  // it, if the tokenizer names them and tokenizer_config.json does not say add_bos_token or add_eos_token false
  // (torchtitan's rule).  Text must be UTF-8, whatever the kind.
  std::vector<std::int32_t> encode_document(std::string_view text) const;

  // The text of ids; bytes that form no character become U+FFFD as in the library that is followed.  `skip_special`
  // leaves special tokens out; SentencePiece without files beside it shows control symbols in neither case.
  // Throws InputError when an id is outside the vocabulary.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;

  // The bytes an id stands for (part of a character, perhaps); a special token's are its text, which the decoder reads
  // as it reads every token.  None for an id that no token has.  Throws InputError outside the vocabulary.
  std::string_view bytes(std::int32_t id) const;
  bool is_special(std::int32_t id) const;

  std::optional<std::int32_t> id_of(std::string_view token) const;  // of a token as the vocabulary spells it, or added
  std::int64_t vocab_size() const;                                  // the largest id, plus one
  std::optional<std::int32_t> bos() const;
  std::optional<std::int32_t> eos() const;
  std::optional<std::int32_t> pad() const;
  // XXH3-128 of the files' content, 32 hexadecimal digits: tells one tokenizer from another.
  const std::string& fingerprint() const;

  struct Table;  // the implementation's

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const Table> table) : table_(std::move(table)) {}
  std::shared_ptr<const Table> table_;
};

// Turns ids into text as they come, and never gives out half a character.
//
// All together is what decode() gives, but for one case: a run of byte tokens (<0x0A>) of a tokenizer.json that spells
// no text as a whole.  decode() makes U+FFFD of all of it, as `tokenizers` does; here the characters that were whole
// before the damage have been given out.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  // The text that is certain after this id; may be empty.
  std::string push(std::int32_t id);
  // What is left, incomplete characters as U+FFFD.  Ready for the next text.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace caravan::tokenizer
