// Reads tokenizer.model as sentencepiece_model.proto describes it: field numbers and defaults are from there.
#include <fmt/core.h>

#include <protozero/exception.hpp>
#include <protozero/pbf_reader.hpp>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/sentencepiece.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;
using protozero::tag_and_type;

constexpr auto kBytes = pbf_wire_type::length_delimited;
constexpr auto kVarint = pbf_wire_type::varint;
constexpr std::size_t kMaxPieces = std::size_t{1} << 22;
constexpr std::size_t kMaxSurfaceBytes = 256;

std::string_view view_of(const protozero::data_view& bytes) {
  return {bytes.data(), bytes.size()};
}

// Protozero's own get_bool reads a byte before it knows that there is one.
bool flag(pbf_reader& field) {
  return field.get_uint64() != 0;
}

// A field of another wire type than the format's is an unknown field, as in protobuf itself.
class Reader {
 public:
  Reader(const std::string& source, SentencePieceSpec& spec) : source_(source), spec_(spec) {}

  void model(std::string_view bytes) {
    pbf_reader fields(bytes.data(), bytes.size());
    while (fields.next()) {
      switch (fields.tag_and_type()) {
        case tag_and_type(1, kBytes):
          piece(fields.get_message());
          break;
        case tag_and_type(2, kBytes):
          trainer(fields.get_message());
          break;
        case tag_and_type(3, kBytes):
          normalizer(fields.get_message());
          break;
        case tag_and_type(5, kBytes):
          denormalizer(fields.get_message());
          break;
        default:
          fields.skip();
      }
    }
  }

  // How many were read: where the damage begins, roughly.
  std::size_t pieces() const { return spec_.pieces.size(); }

 private:
  void piece(pbf_reader fields) {
    if (spec_.pieces.size() == kMaxPieces) {
      throw FormatError(fmt::format("{}: there are more than {} pieces", source_, grouped(kMaxPieces)));
    }
    VocabularyEntry piece;
    while (fields.next()) {
      switch (fields.tag_and_type()) {
        case tag_and_type(1, kBytes):
          piece.text = view_of(fields.get_view());
          break;
        case tag_and_type(2, pbf_wire_type::fixed32):
          piece.score = fields.get_float();
          break;
        case tag_and_type(3, kVarint): {
          const std::int32_t kind = fields.get_enum();
          if (kind < 1 || kind > 6) {
            throw FormatError(fmt::format("{}: piece {} is of the unknown kind {}", source_,
                                          grouped(static_cast<std::int64_t>(spec_.pieces.size())), kind));
          }
          piece.kind = static_cast<TokenKind>(kind);
          break;
        }
        default:
          fields.skip();
      }
    }
    spec_.pieces.push_back(piece);
  }

  void trainer(pbf_reader fields) {
    while (fields.next()) {
      switch (fields.tag_and_type()) {
        case tag_and_type(3, kVarint):
          spec_.kind = kind(fields.get_enum());
          break;
        case tag_and_type(24, kVarint):
          spec_.whitespace_as_suffix = flag(fields);
          break;
        case tag_and_type(35, kVarint):
          spec_.byte_fallback = flag(fields);
          break;
        case tag_and_type(44, kBytes):
          surface(view_of(fields.get_view()));
          break;
        case tag_and_type(46, kBytes):
          name(view_of(fields.get_view()), "<s>", spec_.bos_piece);
          break;
        case tag_and_type(47, kBytes):
          name(view_of(fields.get_view()), "</s>", spec_.eos_piece);
          break;
        case tag_and_type(48, kBytes):
          name(view_of(fields.get_view()), "<pad>", spec_.pad_piece);
          break;
        default:
          fields.skip();
      }
    }
  }

  static void name(std::string_view text, const char* otherwise, std::string& piece) {
    piece = text.empty() ? otherwise : text;
  }

  void surface(std::string_view text) {
    if (text.size() > kMaxSurfaceBytes || first_invalid_byte(text)) {
      throw FormatError(fmt::format("{}: unk_surface is not up to {} bytes of UTF-8", source_, kMaxSurfaceBytes));
    }
    spec_.unknown_surface = text;
  }

  SentencePieceSpec::Kind kind(std::int32_t number) const {
    if (number == 3 || number == 4) {
      throw UnsupportedError(fmt::format("{}: a SentencePiece model of {} is not supported", source_,
                                         number == 3 ? "words" : "characters"));
    }
    if (number != 1 && number != 2) {
      throw FormatError(fmt::format("{}: the SentencePiece model is of the unknown kind {}", source_, number));
    }
    return static_cast<SentencePieceSpec::Kind>(number);
  }

  void normalizer(pbf_reader fields) {
    while (fields.next()) {
      switch (fields.tag_and_type()) {
        case tag_and_type(2, kBytes):
          spec_.charsmap = view_of(fields.get_view());
          break;
        case tag_and_type(3, kVarint):
          spec_.add_dummy_prefix = flag(fields);
          break;
        case tag_and_type(4, kVarint):
          spec_.remove_extra_whitespaces = flag(fields);
          break;
        case tag_and_type(5, kVarint):
          spec_.escape_whitespaces = flag(fields);
          break;
        default:
          fields.skip();
      }
    }
  }

  void denormalizer(pbf_reader fields) const {
    while (fields.next()) {
      if (fields.tag_and_type() != tag_and_type(2, kBytes)) {
        fields.skip();
      } else if (fields.get_view().size() > 0) {
        throw UnsupportedError(
            fmt::format("{}: a SentencePiece model with a table of denormalisations is not supported", source_));
      }
    }
  }

  const std::string& source_;
  SentencePieceSpec& spec_;
};

}  // namespace

SentencePieceSpec read_sentencepiece(std::string_view bytes, const std::string& source) {
  SentencePieceSpec spec;
  Reader reader(source, spec);
  try {
    reader.model(bytes);
  } catch (const protozero::exception& error) {
    if (reader.pieces() == 0) {
      throw FormatError(
          fmt::format("{}: the file is no tokenizer: neither JSON, nor lines of base64 and ranks, nor a "
                      "SentencePiece model",
                      source));
    }
    throw FormatError(
        fmt::format("{}: the SentencePiece model is cut short or damaged: behind piece {} its protobuf "
                    "cannot be read ({}); fetch it again",
                    source, grouped(static_cast<std::int64_t>(reader.pieces() - 1)), error.what()));
  }
  return spec;
}

}  // namespace caravan::tokenizer
