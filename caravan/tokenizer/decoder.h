// From ids back to text, one after the other.
//
// Three ways: bytes joined (byte-level vocabularies); the steps of a tokenizer.json's decoder; SentencePiece's own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/tokenizer/pattern.h"

namespace caravan::tokenizer {

// A step of a tokenizer.json's decoder: a list of tokens in, a list of tokens out.
struct DecodeStep {
  enum class Kind {
    kReplace,       // `content` for every `literal`, or match of `pattern`
    kByteFallback,  // runs of <0x00> to <0xFF> to the characters they spell, or to as many U+FFFD if they spell none
    kFuse,          // all tokens to one
    kStrip,         // up to `start` of the character `content` from the front of each token, up to `stop` from its end
    kMetaspace      // a space for every `literal`; in the first token nothing, where the mark was `prepended`
  };
  Kind kind = Kind::kFuse;
  std::string literal;
  std::optional<Pattern> pattern;
  std::string content;
  std::size_t start = 0;
  std::size_t stop = 0;
  bool prepended = false;
};

// What a SentencePiece model makes of an id.
enum class PieceRole : std::uint8_t {
  kText,     // its text, U+2581 as a space
  kPlain,    // its text as it is: a token of tokenizer_config.json
  kUnknown,  // DecodeRules::unknown_text
  kControl,  // nothing
  kByte      // the byte of its name
};

struct DecodeRules {
  enum class Kind { kBytes, kSteps, kPieces };
  Kind kind = Kind::kBytes;
  std::vector<DecodeStep> steps;   // kSteps: at most one Fuse, behind which there are Replace by text and Strip alone
  std::vector<PieceRole> roles;    // kPieces: by id
  std::string unknown_text;        // kPieces
  bool drops_first_space = false;  // kPieces: of the text
  bool drops_leading_spaces = false;  // kPieces: one of every token that comes before there is text
};

// The byte that a token like <0x0A> names.
std::optional<unsigned char> byte_named_by(std::string_view token);

// The bytes that a token stands for, wherever it stands: without what steps do at the ends of a text.
std::string bytes_of(const DecodeRules& rules, std::int32_t id, std::string_view token);

// The state of one text.  `rules` must outlive it.
class TokenDecoder {
 public:
  // `eager`: characters of a run of bytes are given out as soon as they are whole.  Without, a run that turns out to
  // spell no text is all U+FFFD, as `tokenizers` has it; kPieces decides character by character in either case.
  TokenDecoder(const DecodeRules& rules, bool eager);

  // The next token, as the vocabulary spells it; appends what is certain.  kBytes: bytes are appended as they are, and
  // may be part of a character.
  void push(std::int32_t id, std::string_view token, std::string& out);
  // Appends what was held back.  Ready for the next text.
  void finish(std::string& out);

 private:
  struct StepState {
    std::int64_t tokens = 0;     // kMetaspace: that have come
    std::size_t front_left = 0;  // kStrip behind Fuse: characters that may still go
    bool at_front = true;
    std::string held;  // kStrip behind Fuse: the run of `content` at the end; kReplace behind it: what may be `literal`
  };

  void reset();
  void step(std::string_view token, std::size_t number, std::string& out);
  void fused(std::string_view text, std::size_t number, std::string& out);
  void bytes(std::string_view token, std::size_t number, std::string& out);
  void flush_run(std::string& out);
  void strip_stream(std::string_view text, std::size_t number, std::string& out);
  void replace_stream(std::string_view text, std::size_t number, std::string& out);
  void piece(std::int32_t id, std::string_view token, std::string& out);
  void flush_pieces(bool at_end, std::string& out);
  void give(std::string_view text, std::string& out);

  const DecodeRules& rules_;
  bool eager_;
  std::size_t byte_step_ = 0;  // number of the ByteFallback, or of steps
  std::size_t fuse_step_ = 0;  // number of the Fuse, or of steps
  std::vector<StepState> states_;
  std::string run_;      // bytes of a run that is not over
  bool broken_ = false;  // an eager run that spells no text from here on
  bool first_space_open_ = true;
  bool space_dropped_ = false;
  bool any_text_ = false;
};

}  // namespace caravan::tokenizer
