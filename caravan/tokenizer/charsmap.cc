#include "caravan/tokenizer/charsmap.h"

#include <fmt/core.h>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kMaxTextBytes = 256;  // 18 characters are the most that Unicode's normal forms make of one

std::uint32_t little_endian(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    value |= std::uint32_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  }
  return value;
}

// The fields of a unit, as Darts-clone packs them.
std::size_t offset_of(std::uint32_t unit) {
  return std::size_t{unit >> 10} << ((unit & (1U << 9)) >> 6);
}
bool has_leaf(std::uint32_t unit) {
  return (unit >> 8 & 1) != 0;
}
std::uint32_t label_of(std::uint32_t unit) {
  return unit & (1U << 31 | 0xFF);
}
std::size_t value_of(std::uint32_t leaf) {
  return leaf & ~(1U << 31);
}

}  // namespace

CharsMap::CharsMap(std::string_view blob, const std::string& source) {
  if (blob.empty()) {
    return;
  }
  const std::size_t array_bytes = blob.size() > 4 ? little_endian(blob, 0) : blob.size();
  if (array_bytes + 4 > blob.size() || array_bytes % 4 != 0 || array_bytes == 0) {
    throw FormatError(fmt::format("{}: the table of normalisations says that {} of its {} bytes are its index", source,
                                  grouped(static_cast<std::int64_t>(array_bytes)),
                                  grouped(static_cast<std::int64_t>(blob.size()))));
  }
  units_.reserve(array_bytes / 4);
  for (std::size_t at = 4; at < 4 + array_bytes; at += 4) {
    units_.push_back(little_endian(blob, at));
  }
  texts_ = blob.substr(4 + array_bytes);
  if (const auto offset = first_invalid_byte(texts_)) {
    throw FormatError(fmt::format("{}: byte {} of the texts in the table of normalisations is not UTF-8", source,
                                  grouped(static_cast<std::int64_t>(*offset))));
  }
  texts_ += '\0';
  for (std::size_t begin = 0; begin < texts_.size();) {
    const std::size_t end = texts_.find('\0', begin);
    if (end - begin > kMaxTextBytes) {
      throw FormatError(
          fmt::format("{}: the table of normalisations holds a text of {} bytes; at most {} are supported", source,
                      grouped(static_cast<std::int64_t>(end - begin)), grouped(kMaxTextBytes)));
    }
    begin = end + 1;
  }
}

std::optional<std::pair<std::string_view, std::size_t>> CharsMap::longest(std::string_view text, std::size_t at) const {
  std::optional<std::pair<std::string_view, std::size_t>> best;
  std::size_t node = offset_of(units_[0]);
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label_of(units_[node]) != byte) {
      break;
    }
    const std::uint32_t unit = units_[node];
    node ^= offset_of(unit);
    if (has_leaf(unit)) {
      const std::size_t value = node < units_.size() ? value_of(units_[node]) : texts_.size();
      // Not into the middle of a character either.
      if (value >= texts_.size() || (static_cast<unsigned char>(texts_[value]) & 0xC0) == 0x80) {
        break;
      }
      best = {std::string_view(texts_.c_str() + value), i + 1 - at};
    }
  }
  return best;
}

}  // namespace caravan::tokenizer
