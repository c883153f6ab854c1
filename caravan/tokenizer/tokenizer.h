// Text to token ids and back: byte-level BPE as Hugging Face's tokenizer.json describes it.
//
// Ids equal those of the `tokenizers` library for every input.  What a file asks for and Caravan does not do is refused
// when it is loaded, with the name of the thing: nothing is silently left out.
//
//   normalizer       none, NFC, NFD, NFKC, NFKD, or a sequence of them
//   pre_tokenizer    ByteLevel (GPT-2's pattern, with or without prefix space), Split by a pattern, or a sequence of
//                    them; the patterns of GPT-2 and Llama 3 are hand scanners, others run in PCRE2 with limits
//   model            BPE, ignore_merges, merges as "a b" or ["a", "b"]; byte_fallback and unk_token where every byte
//                    has a token, so that neither is ever used
//   post_processor   ByteLevel, TemplateProcessing, or a sequence of them
//   decoder          ByteLevel, or a sequence that holds it
//   added_tokens     special or not; lstrip, rstrip, single_word, normalized
//   truncation, padding   not looked at: transformers switches both off
//
// The hand scanners see the letters and numbers of Unicode 16, as `tokenizers` 0.23 does, and normalisation leaves what
// is younger than Unicode 9 alone, as there.  Other patterns see PCRE2's Unicode version (14 in 10.42), and single_word
// that of utf8proc (15 in 2.8): only for characters that are younger can ids differ.
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

struct EncodeOptions {
  bool add_special = true;  // apply the template of the post-processor: BOS, EOS
  bool plain = false;       // special tokens written in the text are ordinary text
};

// A loaded tokenizer.  Copies share one immutable table; any number of threads may use it at once.
class Tokenizer {
 public:
  // A tokenizer.json, or a directory that holds one.  tokenizer_config.json beside it, when there is one, names BOS and
  // EOS and says whether documents get them.
  // Throws FileError when it is missing, FormatError when it is damaged, UnsupportedError naming what Caravan lacks.
  static Tokenizer load(const std::filesystem::path& path);
  // The same from texts; `source` opens every message, `config` is tokenizer_config.json's text or empty.
  static Tokenizer parse(std::string_view json, const std::string& source, std::string_view config = {});

  // The ids of a text.  Text must be UTF-8: throws InputError with the offset of the first byte that is not.
  // A pattern that runs beyond PCRE2's limits throws InputError.
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // The ids of a training document: the template applied, and where the template adds none, BOS before and EOS after
  // it, if the tokenizer names them and tokenizer_config.json does not say add_bos_token or add_eos_token false
  // (torchtitan's rule).
  std::vector<std::int32_t> encode_document(std::string_view text) const;

  // The text of ids; bytes that form no character become U+FFFD as in `tokenizers`.  `skip_special` leaves special
  // tokens out.  Throws InputError when an id is outside the vocabulary.
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
  explicit Tokenizer(std::shared_ptr<const Table> table) : table_(std::move(table)) {}
  std::shared_ptr<const Table> table_;
};

// Turns ids into text as they come, and never gives out half a character.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = true);
  // The text that is certain after this id; may be empty.
  std::string push(std::int32_t id);
  // What is left, incomplete characters as U+FFFD.  Ready for the next text.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::string pending_;
};

}  // namespace caravan::tokenizer
