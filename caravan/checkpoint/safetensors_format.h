// What reader and writer of safetensors agree on: the types of the format, its limits, and which names are usable.
// Private to this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "caravan/tensor/dtype.h"

namespace caravan::checkpoint {

constexpr std::int64_t kLengthBytes = 8;               // the header's length, little-endian
constexpr std::int64_t kMaxHeaderBytes = 100'000'000;  // as in the reference implementation
constexpr std::int64_t kMaxTensors = std::int64_t{1} << 20;
constexpr std::size_t kMaxNameBytes = 4096;
inline constexpr char kMetadataKey[] = "__metadata__";

// A type of the format.  Some are smaller than a byte; some are none of Caravan's.
struct FormatType {
  const char* name;
  int bits;
  std::optional<DType> dtype;
};

// The type of that name, or nullptr.
const FormatType* find_format_type(std::string_view name);

// Bits of a tensor without gaps, or nothing when they pass 2^63.  A zero extent does not hide the others: they must fit
// as if it were one.
std::optional<std::int64_t> tensor_bits(std::span<const std::int64_t> shape, int bits_per_element);

// Why no tensor may have this name ("is longer than ..."), or nothing.
std::optional<std::string> name_fault(std::string_view name);

// Whether a file of that name lies in the directory that speaks of it: a shard or a piece must, whatever index or
// manifest say.
bool is_plain_file_name(std::string_view name);

// `text` as printable() shows it, in quotation marks.
std::string in_quotes(std::string_view text);

// "[131, 32]" for any rank; the middle of a very long shape is left out.
std::string shape_text(std::span<const std::int64_t> shape);

}  // namespace caravan::checkpoint
