#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <tuple>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/base/text.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/checkpoint/safetensors_format.h"

namespace caravan::checkpoint {
namespace {

constexpr char kTruncated[] = "the file is truncated or its header lies; fetch it again";

[[noreturn]] void refuse(const std::string& source, const std::string& fault) {
  throw FormatError(fmt::format("{}: {}", source, fault));
}

[[noreturn]] void refuse_tensor(const std::string& source, std::string_view name, const std::string& fault) {
  throw FormatError(fmt::format("{}: tensor {} {}", source, in_quotes(name), fault));
}

// A value of the header as a message shows it.
std::string shown(const Json& value) {
  if (value.is_array() || value.is_object()) {
    return fmt::format("an {} of {}", value.type_name(), value.size());
  }
  return value.is_string() ? in_quotes(value.get_ref<const std::string&>()) : value.dump();
}

std::uint64_t read_length(std::span<const std::byte> head) {
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(kLengthBytes); ++i) {
    length |= std::to_integer<std::uint64_t>(head[i]) << (8 * i);
  }
  return length;
}

// The JSON text, once the length before it is believed.
std::string_view header_text(std::span<const std::byte> head, std::int64_t file_bytes, const std::string& source) {
  if (head.size() > static_cast<std::uint64_t>(file_bytes)) {
    head = head.first(static_cast<std::size_t>(file_bytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  if (text.starts_with("version https://git-lfs")) {
    refuse(source, "this is a Git LFS pointer, not the file it points to; fetch the file with: git lfs pull");
  }
  if (text.size() < static_cast<std::size_t>(kLengthBytes)) {
    refuse(source, fmt::format("the file has {} bytes but a safetensors file begins with {} bytes of header length; {}",
                               text.size(), kLengthBytes, kTruncated));
  }
  const std::uint64_t length = read_length(head);
  if (length > static_cast<std::uint64_t>(kMaxHeaderBytes)) {
    refuse(source,
           fmt::format("bytes 0 to 7 say that the header has {} bytes but the format allows {}; this is no safetensors "
                       "file, or a damaged one",
                       length, grouped(kMaxHeaderBytes)));
  }
  const auto header_bytes = static_cast<std::size_t>(length);
  if (header_bytes > text.size() - static_cast<std::size_t>(kLengthBytes)) {
    refuse(source, fmt::format("bytes 0 to 7 say that the header has {} bytes but only {} follow; {}",
                               grouped(static_cast<std::int64_t>(header_bytes)),
                               grouped(static_cast<std::int64_t>(text.size()) - kLengthBytes), kTruncated));
  }
  const std::string_view header = text.substr(static_cast<std::size_t>(kLengthBytes), header_bytes);
  if (!header.starts_with('{')) {
    refuse(source, fmt::format("the header at byte {} must begin with '{{' but {}", kLengthBytes,
                               header.empty() ? "is empty" : "begins with " + in_quotes(header.substr(0, 1))));
  }
  return header;
}

std::map<std::string, std::string> parse_metadata(const Json& value, const std::string& source) {
  if (!value.is_object()) {
    refuse(source, fmt::format("{} must be an object of strings but is {}", kMetadataKey, shown(value)));
  }
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      refuse(source, fmt::format("{} holds a string for every key, but for {} it holds {}", kMetadataKey,
                                 in_quotes(key), shown(text)));
    }
    metadata.emplace(key, text.get_ref<const std::string&>());
  }
  return metadata;
}

// A whole number from 0 to 2^63 - 1; `what` names it.
std::int64_t parse_count(const Json& value, std::string_view what, std::string_view tensor, const std::string& source) {
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kMax) {
    refuse_tensor(source, tensor, fmt::format("has {} {}; expected a whole number below 2^63", what, shown(value)));
  }
  return static_cast<std::int64_t>(value.get<std::uint64_t>());
}

struct EntryFields {
  const Json* dtype = nullptr;
  const Json* shape = nullptr;
  const Json* offsets = nullptr;
};

EntryFields find_fields(const std::string& name, const Json& value, const std::string& source) {
  if (!value.is_object()) {
    refuse_tensor(source, name,
                  fmt::format("must be an object of dtype, shape and data_offsets but is {}", shown(value)));
  }
  EntryFields fields;
  for (const auto& [key, field] : value.items()) {
    if (key == "dtype" && field.is_string()) {
      fields.dtype = &field;
    } else if (key == "shape" && field.is_array()) {
      fields.shape = &field;
    } else if (key == "data_offsets" && field.is_array() && field.size() == 2) {
      fields.offsets = &field;
    } else {
      refuse_tensor(source, name,
                    fmt::format("has the field {} = {}; expected dtype (a string), shape (an array) and data_offsets "
                                "(an array of 2)",
                                in_quotes(key), shown(field)));
    }
  }
  if (fields.dtype == nullptr || fields.shape == nullptr || fields.offsets == nullptr) {
    refuse_tensor(source, name,
                  fmt::format("has no {}", fields.dtype == nullptr   ? "dtype"
                                           : fields.shape == nullptr ? "shape"
                                                                     : "data_offsets"));
  }
  return fields;
}

TensorEntry parse_entry(const std::string& name, const Json& value, const std::string& source) {
  if (const auto fault = name_fault(name)) {
    refuse_tensor(source, name, *fault);
  }
  const EntryFields fields = find_fields(name, value, source);
  TensorEntry entry;
  entry.name = name;
  entry.dtype_name = fields.dtype->get_ref<const std::string&>();
  entry.shape.reserve(fields.shape->size());
  for (const Json& extent : *fields.shape) {
    entry.shape.push_back(parse_count(extent, "the extent", name, source));
  }
  entry.begin = parse_count((*fields.offsets)[0], "the begin offset", name, source);
  entry.end = parse_count((*fields.offsets)[1], "the end offset", name, source);

  const FormatType* type = find_format_type(entry.dtype_name);
  if (type == nullptr) {
    refuse_tensor(
        source, name,
        fmt::format("has the dtype {}, which the safetensors format does not know", in_quotes(entry.dtype_name)));
  }
  entry.dtype = type->dtype;
  if (entry.end < entry.begin) {
    refuse_tensor(source, name, fmt::format("ends at offset {}, before it begins at {}", entry.end, entry.begin));
  }
  const std::optional<std::int64_t> bits = tensor_bits(entry.shape, type->bits);
  if (!bits) {
    refuse_tensor(source, name,
                  fmt::format("has the shape {} of {}, whose size wraps around 2^63 bits", shape_text(entry.shape),
                              entry.dtype_name));
  }
  if (*bits % 8 != 0) {
    refuse_tensor(source, name,
                  fmt::format("has the shape {} of {}, {} bits, which are no whole bytes", shape_text(entry.shape),
                              entry.dtype_name, *bits));
  }
  if (*bits / 8 != entry.bytes()) {
    refuse_tensor(
        source, name,
        fmt::format("has the shape {} of {}, {} bytes, but its offsets {} to {} span {}", shape_text(entry.shape),
                    entry.dtype_name, *bits / 8, entry.begin, entry.end, entry.bytes()));
  }
  return entry;
}

// Sorted entries must tile the data section: no overlap, no gap, no byte beyond the file, none left over.
void check_tiling(const SafetensorsHeader& header, std::int64_t data_bytes, const std::string& source) {
  std::int64_t position = 0;
  const TensorEntry* previous = nullptr;
  for (const TensorEntry& entry : header.entries) {
    if (entry.begin < position) {
      refuse_tensor(source, entry.name,
                    fmt::format("begins at offset {} and overlaps tensor {}, which ends at {}", entry.begin,
                                in_quotes(previous->name), position));
    }
    if (entry.begin > position) {
      refuse_tensor(source, entry.name,
                    fmt::format("begins at offset {} but {}; the {} bytes of the gap belong to no tensor", entry.begin,
                                previous == nullptr ? std::string("is the first tensor")
                                                    : fmt::format("tensor {} before it ends at {}",
                                                                  in_quotes(previous->name), position),
                                entry.begin - position));
    }
    if (entry.end > data_bytes) {
      // Neither sum wraps: data_begin is at most 100 MB, and what is compared stays below 2^63 bits.
      refuse_tensor(source, entry.name,
                    fmt::format("ends at byte {} but the file has {} bytes; {}", grouped(header.data_begin + entry.end),
                                grouped(header.data_begin + data_bytes), kTruncated));
    }
    position = entry.end;
    previous = &entry;
  }
  if (position < data_bytes) {
    refuse(source,
           fmt::format("{} bytes at the end, from byte {} on, belong to no tensor: {} tensors end there but the "
                       "file has {} bytes",
                       grouped(data_bytes - position), grouped(header.data_begin + position), header.entries.size(),
                       grouped(header.data_begin + data_bytes)));
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> head, std::int64_t file_bytes,
                                           const std::string& source) {
  const std::string_view text = header_text(head, file_bytes, source);
  // A header is three deep; a fourth level is read so that the message can name the tensor.
  const JsonLimits limits{.max_bytes = kMaxHeaderBytes, .max_depth = 4, .max_values = 16 * kMaxTensors};
  const Json json = parse_json(text, source + ": header", limits);
  if (json.size() > static_cast<std::size_t>(kMaxTensors)) {
    refuse(source, fmt::format("the header lists {} tensors; the limit is {}", json.size(), kMaxTensors));
  }

  SafetensorsHeader header;
  header.data_begin = kLengthBytes + static_cast<std::int64_t>(text.size());
  header.entries.reserve(json.size());
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadataKey) {
      header.metadata = parse_metadata(value, source);
    } else {
      header.entries.push_back(parse_entry(name, value, source));
    }
  }
  // By end as well: an empty tensor stands before the one that begins where it does.
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  check_tiling(header, file_bytes - header.data_begin, source);
  return header;
}

}  // namespace caravan::checkpoint
