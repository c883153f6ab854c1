// SentencePiece (Kudo and Richardson 2018): a normaliser of its own, and BPE by scores or a unigram model.
//
// Ids equal those of the `sentencepiece` package (0.2.3) for every input, also one that is not UTF-8.  The reader and both
// models are Caravan's own, and not Debian's libsentencepiece (0.1.97), because
//   - a tokenizer.model comes from a stranger: the library walks the double array of a file without bounds and ends the
//     process on some contradictions (CHECK), and its 0.1.97 lacks the repairs of 0.2.1;
//   - it merges a text as one word, with a look-up of text a pair.  Here pairs of ids are looked up, and where the
//     vocabulary allows it (Llama's does) words are merged one by one and remembered;
//   - the vocabulary of a GGUF file needs the same merges, and has no protobuf to hand to a library.
// For the file itself protozero serves, which bounds-checks every field.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "caravan/tokenizer/bpe.h"
#include "caravan/tokenizer/byte_trie.h"
#include "caravan/tokenizer/charsmap.h"
#include "caravan/tokenizer/parts.h"
#include "caravan/tokenizer/piece_cache.h"

namespace caravan::tokenizer {

// What a model says, wherever it was read.  Views into the file: they last as long as it.
struct SentencePieceSpec {
  enum class Kind { kUnigram = 1, kBpe = 2 };
  Kind kind = Kind::kUnigram;
  std::vector<VocabularyEntry> pieces;
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool whitespace_as_suffix = false;
  std::string_view charsmap;
  std::string unknown_surface = " \xE2\x81\x87 ";  // what the unknown token decodes to
  // Names of control tokens that need not be there.
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";
  std::string pad_piece = "<pad>";
};

// Reads a ModelProto.  Throws FormatError when the bytes are none or are cut short, UnsupportedError for a model of
// words or of characters and for a table of denormalisations.
SentencePieceSpec read_sentencepiece(std::string_view bytes, const std::string& source);

class SentencePieceModel {
 public:
  // Fills `model`, whose tokens and merges encode() uses: it must live as long as this.  Throws FormatError when the
  // pieces contradict each other.
  SentencePieceModel(const SentencePieceSpec& spec, const std::string& source, BpeModel& model);

  // The text in which pieces are looked for.  `begins`: with the dummy prefix, if the model has one.
  std::string normalize(std::string_view text, bool begins) const { return normalize(text, begins, space_); }

  // Appends the ids of a text.  `begins` as above; `cache` is of the model that was filled, with the spaces that
  // has_plain_spaces() says.
  void encode(std::string_view text, bool begins, PieceCache& cache, std::vector<std::int32_t>& ids) const;

  // Words are merged with a space in the place of U+2581.
  bool has_plain_spaces() const;

  bool adds_dummy_prefix() const { return add_dummy_prefix_; }
  bool removes_extra_whitespaces() const { return remove_extra_whitespaces_; }

 private:
  // Where a unigram path came from.
  struct Best {
    float score = 0;
    std::int32_t id = -1;
    std::int32_t begin = -1;
  };

  void read_pieces(const SentencePieceSpec& spec, const std::string& source);
  void read_merges(const SentencePieceSpec& spec, const std::string& source);
  void read_scores(const SentencePieceSpec& spec);
  void check_bytes(const std::string& source) const;
  std::pair<std::string_view, std::size_t> normalized_prefix(std::string_view text, std::size_t at) const;
  // `space` stands for each.
  std::string normalize(std::string_view text, bool begins, std::string_view space) const;
  void merge(std::string_view normalized, PieceCache& cache, std::vector<std::int32_t>& ids) const;
  void unigram(std::string_view normalized, std::vector<std::int32_t>& ids) const;
  std::size_t unigram_step(std::string_view text, std::size_t at, std::size_t character, std::vector<Best>& best) const;
  void merge_with_unused(std::string_view normalized, std::vector<std::int32_t>& ids) const;
  void put_symbol(std::int32_t symbol, std::vector<std::int32_t>& ids) const;
  void put_unknown(std::string_view text, std::vector<std::int32_t>& ids) const;
  bool is_unused(std::int32_t id) const { return kinds_[static_cast<std::size_t>(id)] == TokenKind::kUnused; }

  SentencePieceSpec::Kind kind_;
  bool add_dummy_prefix_;
  bool remove_extra_whitespaces_;
  bool whitespace_as_suffix_;
  std::string_view space_;  // what stands for one
  CharsMap charsmap_;
  ByteTrie user_defined_;
  BpeModel* model_;
  std::vector<TokenKind> kinds_;
  bool has_unused_ = false;
  // BPE: characters that pieces are made of and that are no pieces have ids from kinds_.size() on while words are
  // merged; what remains of them is unknown.
  std::vector<char32_t> bare_characters_;
  // Unigram.
  ByteTrie pieces_;
  std::vector<float> scores_;
  float least_ = 0;
};

}  // namespace caravan::tokenizer
