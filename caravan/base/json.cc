#include "caravan/base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/base/text.h"

namespace caravan {
namespace {

// Walks the text and leaves a trace of where the parser is: its callbacks are not told.
class TracingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  TracingIterator(const char* at, const char** trace) : at_(at), trace_(trace) {}

  reference operator*() const { return *at_; }
  TracingIterator& operator++() {
    *trace_ = ++at_;
    return *this;
  }
  TracingIterator operator++(int) {
    const TracingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const TracingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const TracingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** trace_;
};

// An object or array whose end has not been read.  Members wait here and move into the finished value at once: a
// growing nlohmann object would copy them, and its operator[] searches from the front.
struct OpenContainer {
  struct Member {
    std::string key;
    Json value;
    std::int64_t key_end = 0;  // the key's last byte, counted from 1, for messages
  };
  bool is_object = false;
  std::vector<Member> members;
  std::vector<Json> elements;
};

// The parser's callbacks (nlohmann's SAX interface: `true` goes on).  Problems are thrown through the parser.
class Builder {
 public:
  Builder(const char* begin, const char* const* trace, const std::string& source, const JsonLimits& limits)
      : begin_(begin), trace_(trace), source_(source), limits_(limits) {}

  bool null() { return add(Json(nullptr)); }
  bool boolean(bool value) { return add(Json(value)); }
  bool number_integer(Json::number_integer_t value) { return add(Json(value)); }
  bool number_unsigned(Json::number_unsigned_t value) { return add(Json(value)); }
  bool number_float(Json::number_float_t value, const std::string&) { return add(Json(value)); }
  bool string(std::string& value) { return add(Json(std::move(value))); }
  bool binary(Json::binary_t&) { return false; }  // JSON text has none

  bool start_object(std::size_t) { return open(true); }
  bool start_array(std::size_t) { return open(false); }

  bool key(std::string& key) {
    open_.back().members.push_back({.key = std::move(key), .value = Json(), .key_end = position()});
    return true;
  }

  bool end_object() {
    std::vector<OpenContainer::Member> members = std::move(open_.back().members);
    open_.pop_back();
    refuse_repeated_keys(members);
    Json::object_t object;
    object.reserve(members.size());
    for (OpenContainer::Member& member : members) {
      // The vector below the ordered map: the map's own insertion searches all keys.
      static_cast<Json::object_t::Container&>(object).emplace_back(std::move(member.key), std::move(member.value));
    }
    place(Json(std::move(object)));
    return true;
  }

  bool end_array() {
    Json::array_t elements = std::move(open_.back().elements);
    open_.pop_back();
    place(Json(std::move(elements)));
    return true;
  }

  bool parse_error(std::size_t byte, const std::string&, const nlohmann::detail::exception& error) {
    throw FormatError(fmt::format("{}: not valid JSON at byte {}: {}", source_,
                                  grouped(static_cast<std::int64_t>(byte)), printable(reason(error.what()))));
  }

  Json take_result() { return std::move(result_); }

 private:
  std::int64_t position() const { return *trace_ - begin_; }

  // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error while ..." without its head.
  static std::string_view reason(std::string_view what) {
    if (const std::size_t bracket = what.find("] "); bracket != std::string_view::npos) {
      what.remove_prefix(bracket + 2);
    }
    const std::size_t colon = what.find(": ");
    return what.starts_with("parse error") && colon != std::string_view::npos ? what.substr(colon + 2) : what;
  }

  void count_value() {
    if (++values_ > limits_.max_values) {
      throw FormatError(fmt::format("{}: more than {} JSON values at byte {}; the file is not what it should be",
                                    source_, grouped(limits_.max_values), grouped(position())));
    }
  }

  bool add(Json value) {
    count_value();
    place(std::move(value));
    return true;
  }

  bool open(bool is_object) {
    count_value();
    if (static_cast<std::int64_t>(open_.size()) >= limits_.max_depth) {
      throw FormatError(
          fmt::format("{}: JSON nested deeper than {} levels at byte {}; the file is not what it should be", source_,
                      limits_.max_depth, grouped(position())));
    }
    open_.emplace_back().is_object = is_object;
    return true;
  }

  void place(Json value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().is_object) {
      open_.back().members.back().value = std::move(value);
    } else {
      open_.back().elements.push_back(std::move(value));
    }
  }

  // Sorting rather than hashing: no choice of keys makes it slow.
  void refuse_repeated_keys(const std::vector<OpenContainer::Member>& members) const {
    std::vector<const OpenContainer::Member*> sorted;
    sorted.reserve(members.size());
    for (const OpenContainer::Member& member : members) {
      sorted.push_back(&member);
    }
    std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) {
      const int order = a->key.compare(b->key);
      return order != 0 ? order < 0 : a->key_end < b->key_end;
    });
    const auto twice =
        std::adjacent_find(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) { return a->key == b->key; });
    if (twice != sorted.end()) {
      throw FormatError(fmt::format("{}: the key \"{}\" stands twice in one JSON object, again at byte {}", source_,
                                    printable((*twice)->key), grouped((*std::next(twice))->key_end)));
    }
  }

  const char* begin_;
  const char* const* trace_;
  const std::string& source_;
  const JsonLimits& limits_;
  std::int64_t values_ = 0;
  std::vector<OpenContainer> open_;
  Json result_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits) {
  if (static_cast<std::int64_t>(text.size()) > limits.max_bytes) {
    throw FormatError(fmt::format("{}: {} bytes of JSON, but at most {} are read here (up to byte {})", source,
                                  grouped(static_cast<std::int64_t>(text.size())), grouped(limits.max_bytes),
                                  grouped(limits.max_bytes)));
  }
  // nlohmann's lexer takes a zero byte for the end of the text and would pass over what follows.
  if (const void* zero = text.empty() ? nullptr : std::memchr(text.data(), 0, text.size())) {
    throw FormatError(fmt::format("{}: not valid JSON at byte {}: a zero byte", source,
                                  grouped(static_cast<const char*>(zero) - text.data() + 1)));
  }
  const char* trace = text.data();
  Builder builder(text.data(), &trace, source, limits);
  const bool complete =
      Json::sax_parse(TracingIterator(text.data(), &trace), TracingIterator(text.data() + text.size(), &trace),
                      &builder, nlohmann::detail::input_format_t::json, /*strict=*/true);
  if (!complete) {
    throw FormatError(fmt::format("{}: not valid JSON", source));
  }
  return builder.take_result();
}

}  // namespace caravan
