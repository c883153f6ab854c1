// Where in the text each id comes from: the ids are laid over the text, byte by byte.
#include <fmt/core.h>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/table.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

// Lays the ids of a text's stretches over it, in order.
class Layer {
 public:
  Layer(const Tokenizer::Table& table, std::string_view text, Encoding& out) : table_(table), text_(text), out_(out) {}

  // An added token as it was cut out, with the white space that it takes.
  void added(const AddedStretch& stretch) {
    if (next_ == out_.ids.size() || out_.ids[next_] != stretch.id) {
      rewritten(stretch.begin);
    }
    put(stretch.begin, stretch.end);
  }

  // Ordinary text.  A tokenizer may have put a space in front of it that the text has not: the ids that begin with one
  // fit in one of the two ways, since they hold exactly one space more.
  void ordinary(const AddedStretch& stretch) {
    const std::size_t first = next_;
    for (const bool prefixed : {true, false}) {
      next_ = first;
      out_.ranges.resize(first);
      at_ = stretch.begin;
      end_ = stretch.end;
      mark_bytes_ = 0;
      if (covers(prefixed)) {
        return;
      }
    }
    rewritten(at_);
  }

  // Of the template, which stands in no text.
  void outside(std::size_t count, std::size_t at) {
    for (std::size_t i = 0; i < count; ++i) {
      put(at, at);
    }
  }

  bool is_complete() const { return next_ == out_.ids.size(); }

  [[noreturn]] static void rewritten(std::size_t at) {
    throw UnsupportedError(
        fmt::format("this tokenizer rewrites text before it encodes it, so that its ids have no place in the text (at "
                    "byte {})",
                    grouped(static_cast<std::int64_t>(at))));
  }

 private:
  void put(std::size_t begin, std::size_t end) {
    out_.ranges.push_back({begin, end});
    ++next_;
  }

  bool covers(bool prefixed) {
    virtual_space_ = prefixed;
    while (at_ < end_ || virtual_space_) {
      if (next_ == out_.ids.size()) {
        return false;
      }
      const std::size_t begin = at_;
      if (!covers_token(table_.model.tokens.bytes(out_.ids[next_]))) {
        return false;
      }
      put(begin, at_);
    }
    return true;
  }

  bool covers_token(std::string_view token) {
    if (table_.byte_level()) {
      if (virtual_space_) {
        virtual_space_ = false;
        if (!token.starts_with(' ')) {
          return false;
        }
        token.remove_prefix(1);
      }
      return takes(token);
    }
    if (const auto byte = byte_named_by(token)) {
      return covers_byte(*byte);
    }
    while (!token.empty()) {
      const bool marks = token.starts_with(kSpaceSymbol);
      const std::size_t length = marks ? kSpaceSymbol.size() : code_point_at(token, 0).length;
      if (marks && virtual_space_) {
        virtual_space_ = false;
      } else if (virtual_space_ || !(takes(token.substr(0, length)) || (marks && takes(" ")))) {
        return false;
      }
      token.remove_prefix(length);
    }
    return true;
  }

  // A byte of a character that no piece has; of U+2581 that stands for a space the last one takes it.
  bool covers_byte(unsigned char byte) {
    const bool stands_for_space = virtual_space_ || (at_ < end_ && text_[at_] == ' ' && byte != ' ');
    if (!stands_for_space) {
      return takes(std::string_view(reinterpret_cast<const char*>(&byte), 1));
    }
    if (byte != static_cast<unsigned char>(kSpaceSymbol[mark_bytes_])) {
      return false;
    }
    mark_bytes_ = (mark_bytes_ + 1) % kSpaceSymbol.size();
    if (mark_bytes_ == 0) {
      at_ += virtual_space_ ? 0 : 1;
      virtual_space_ = false;
    }
    return true;
  }

  bool takes(std::string_view bytes) {
    if (bytes.size() > end_ - at_ || text_.substr(at_, bytes.size()) != bytes) {
      return false;
    }
    at_ += bytes.size();
    return true;
  }

  const Tokenizer::Table& table_;
  std::string_view text_;
  Encoding& out_;
  std::size_t next_ = 0;  // id
  std::size_t at_ = 0;    // byte of the text, and where its stretch ends
  std::size_t end_ = 0;
  bool virtual_space_ = false;  // one that the text has not is still to come
  std::size_t mark_bytes_ = 0;  // of U+2581 that have come as bytes
};

}  // namespace

Encoding Tokenizer::encode_with_ranges(std::string_view text, const EncodeOptions& options) const {
  require_utf8(text);
  Encoding out;
  out.ids = encode(text, options);
  out.ranges.reserve(out.ids.size());
  Layer layer(*table_, text, out);
  layer.outside(options.add_special ? table_->prefix.size() : 0, 0);
  for (const AddedStretch& stretch : table_->raw_added.split(text, options.plain)) {
    if (stretch.id >= 0) {
      layer.added(stretch);
    } else {
      layer.ordinary(stretch);
    }
  }
  layer.outside(options.add_special ? table_->suffix.size() : 0, text.size());
  if (!layer.is_complete()) {
    Layer::rewritten(text.size());
  }
  return out;
}

}  // namespace caravan::tokenizer
