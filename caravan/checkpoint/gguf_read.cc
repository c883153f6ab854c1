#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <set>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/checkpoint/gguf.h"
#include "caravan/checkpoint/gguf_format.h"
#include "caravan/checkpoint/safetensors_format.h"

namespace caravan::checkpoint {

static_assert(std::endian::native == std::endian::little, "GGUF is read as it lies in memory");

namespace {

constexpr char kTruncated[] = "the file is truncated or lies; fetch it again";

struct KindFacts {
  const char* name;
  int size;
};
// By number.
constexpr std::array<KindFacts, 13> kKinds = {{{"u8", 1},
                                               {"i8", 1},
                                               {"u16", 2},
                                               {"i16", 2},
                                               {"u32", 4},
                                               {"i32", 4},
                                               {"f32", 4},
                                               {"bool", 1},
                                               {"text", 0},
                                               {"array", 0},
                                               {"u64", 8},
                                               {"i64", 8},
                                               {"f64", 8}}};

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

bool is_integer(GgufType type) {
  return type != GgufType::kF32 && type != GgufType::kF64 && type != GgufType::kBool && type != GgufType::kText &&
         type != GgufType::kArray;
}

// An integer of any type; nothing when it does not fit.
std::optional<std::int64_t> load_integer(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::kU8:
      return load<std::uint8_t>(at);
    case GgufType::kI8:
      return load<std::int8_t>(at);
    case GgufType::kU16:
      return load<std::uint16_t>(at);
    case GgufType::kI16:
      return load<std::int16_t>(at);
    case GgufType::kU32:
      return load<std::uint32_t>(at);
    case GgufType::kI32:
      return load<std::int32_t>(at);
    case GgufType::kU64: {
      const auto value = load<std::uint64_t>(at);
      return std::in_range<std::int64_t>(value) ? std::optional(static_cast<std::int64_t>(value)) : std::nullopt;
    }
    case GgufType::kI64:
      return load<std::int64_t>(at);
    default:
      return std::nullopt;
  }
}

double shortest_decimal(float value) {
  char text[64];
  const auto end = std::to_chars(std::begin(text), std::end(text), value).ptr;
  double result = value;  // infinity and NaN stay as they are
  if (std::abs(value) <= std::numeric_limits<float>::max()) {
    std::from_chars(std::begin(text), end, result);
  }
  return result;
}

double load_number(GgufType type, const std::byte* at) {
  return type == GgufType::kF32 ? shortest_decimal(load<float>(at)) : load<double>(at);
}

}  // namespace

const char* to_string(GgufType type) {
  return kKinds[static_cast<std::size_t>(type)].name;
}

int size_of(GgufType type) {
  return kKinds[static_cast<std::size_t>(type)].size;
}

// Reads forward through the head; every step is compared with what is there before it is taken.
struct GgufParser {
  std::span<const std::byte> head;  // not beyond the limit
  std::int64_t file_bytes;
  const std::string& source;
  std::int64_t at = 0;

  [[noreturn]] void refuse(const std::string& fault) const { throw FormatError(fmt::format("{}: {}", source, fault)); }

  std::int64_t left() const { return static_cast<std::int64_t>(head.size()) - at; }

  // The next `count` bytes.
  const std::byte* take(std::uint64_t count, const std::string& what) {
    if (count > static_cast<std::uint64_t>(left())) {
      const std::int64_t seen = static_cast<std::int64_t>(head.size());
      if (seen < file_bytes) {
        refuse(fmt::format("{} at byte {} has {} bytes and ends beyond the {} bytes of metadata that are read", what,
                           grouped(at), count, grouped(seen)));
      }
      refuse(fmt::format("{} at byte {} has {} bytes but the file ends at byte {}; {}", what, grouped(at), count,
                         grouped(file_bytes), kTruncated));
    }
    const std::byte* result = head.data() + at;
    at += static_cast<std::int64_t>(count);
    return result;
  }

  template <typename T>
  T number(const std::string& what) {
    return load<T>(take(sizeof(T), what));
  }

  std::string_view text(const std::string& what) {
    const auto length = number<std::uint64_t>("the length of " + what);
    const std::byte* characters = take(length, what);
    return {reinterpret_cast<const char*>(characters), static_cast<std::size_t>(length)};
  }

  // A key or a tensor's name: printable, not empty.
  std::string name(const std::string& what) {
    const std::int64_t begin = at;
    const std::string_view found = text(what);
    if (found.empty()) {
      refuse(fmt::format("{} at byte {} is empty", what, grouped(begin)));
    }
    if (const auto fault = name_fault(found)) {
      refuse(fmt::format("{} at byte {}, {}, {}", what, grouped(begin), in_quotes(found.substr(0, 64)), *fault));
    }
    return std::string(found);
  }

  // A count whose items take at least `least_bytes` each.
  std::int64_t count(std::uint64_t value, std::int64_t largest, int least_bytes, const std::string& what,
                     std::int64_t where) {
    if (value > static_cast<std::uint64_t>(largest)) {
      refuse(fmt::format("byte {} says that there are {} {}; at most {} are read", grouped(where), value, what,
                         grouped(largest)));
    }
    if (least_bytes > 0 && value > static_cast<std::uint64_t>(left()) / static_cast<std::uint64_t>(least_bytes)) {
      refuse(fmt::format("byte {} says that there are {} {}, which need at least {} bytes, but {} follow; {}",
                         grouped(where), value, what, grouped(static_cast<std::int64_t>(value) * least_bytes),
                         grouped(left()), kTruncated));
    }
    return static_cast<std::int64_t>(value);
  }

  GgufType type(const std::string& key) {
    const std::int64_t where = at;
    const auto number_found = number<std::uint32_t>("a type");
    if (number_found >= kKinds.size()) {
      refuse(fmt::format("key {} has the type {} at byte {}; types are 0 to {}", in_quotes(key), number_found,
                         grouped(where), kKinds.size() - 1));
    }
    return static_cast<GgufType>(number_found);
  }

  void check_booleans(const std::string& key, const std::byte* values, std::int64_t many) {
    for (std::int64_t i = 0; i < many; ++i) {
      if (std::to_integer<int>(values[i]) > 1) {
        refuse(fmt::format("key {} holds a boolean of value {} at byte {}; it must be 0 or 1", in_quotes(key),
                           std::to_integer<int>(values[i]), grouped(values + i - head.data())));
      }
    }
  }

  // Elements of an array, stepped over.
  void skip_elements(const std::string& key, GgufType element, std::int64_t many, int depth) {
    if (const int size = size_of(element); size > 0) {
      const std::byte* values = take(static_cast<std::uint64_t>(many * size), "the value of " + in_quotes(key));
      if (element == GgufType::kBool) {
        check_booleans(key, values, many);
      }
      return;
    }
    if (element == GgufType::kArray && depth == kMaxGgufDepth) {
      refuse(fmt::format("key {} holds arrays in arrays, more than {} deep, at byte {}", in_quotes(key), kMaxGgufDepth,
                         grouped(at)));
    }
    const std::string what = fmt::format("a text of {}", in_quotes(key));
    for (std::int64_t i = 0; i < many; ++i) {
      if (element == GgufType::kText) {
        text(what);
      } else {
        const GgufType inner = type(key);
        skip_elements(key, inner, element_count(key, inner), depth + 1);
      }
    }
  }

  std::int64_t element_count(const std::string& key, GgufType element) {
    const std::int64_t where = at;
    const auto many = number<std::uint64_t>("the length of " + in_quotes(key));
    constexpr int kTextBytes = 8;    // its length
    constexpr int kArrayBytes = 12;  // its type and length
    const int least = element == GgufType::kText    ? kTextBytes
                      : element == GgufType::kArray ? kArrayBytes
                                                    : size_of(element);
    return count(many, kMaxGgufElements, least, fmt::format("elements in {}", in_quotes(key)), where);
  }

  GgufValue value(const std::string& key) {
    GgufValue result;
    result.type = type(key);
    if (result.type == GgufType::kText) {
      const std::string_view characters = text("the value of " + in_quotes(key));
      result.bytes = {reinterpret_cast<const std::byte*>(characters.data()), characters.size()};
      return result;
    }
    if (result.type == GgufType::kArray) {
      result.element = type(key);
      result.count = element_count(key, result.element);
      const std::int64_t begin = at;
      skip_elements(key, result.element, result.count, 1);
      result.bytes = head.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(at - begin));
      return result;
    }
    const auto size = static_cast<std::size_t>(size_of(result.type));
    const std::byte* bytes = take(size, "the value of " + in_quotes(key));
    result.bytes = {bytes, size};
    if (result.type == GgufType::kBool) {
      check_booleans(key, bytes, 1);
    }
    return result;
  }

  void read_metadata(GgufMetadata& metadata, std::int64_t many) {
    metadata.source_ = source;
    for (std::int64_t i = 0; i < many; ++i) {
      const std::int64_t where = at;
      const std::string key = name(fmt::format("key {}", i));
      const GgufValue found = value(key);
      if (!metadata.values_.emplace(key, found).second) {
        refuse(
            fmt::format("the key {} stands there twice, the second time at byte {}", in_quotes(key), grouped(where)));
      }
      metadata.keys_.push_back(key);
    }
  }

  std::int64_t read_alignment(const GgufMetadata& metadata) const {
    const GgufValue* found = metadata.find(kGgufAlignmentKey);
    if (found == nullptr) {
      return kGgufAlignment;
    }
    if (found->type != GgufType::kU32) {
      refuse(fmt::format("\"{}\" must be a u32 but is of type {}", kGgufAlignmentKey, to_string(found->type)));
    }
    const std::int64_t alignment = load<std::uint32_t>(found->bytes.data());
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > kMaxGgufAlignment) {
      refuse(fmt::format("\"{}\" is {}; it must be a power of two of at most {}", kGgufAlignmentKey, alignment,
                         grouped(kMaxGgufAlignment)));
    }
    return alignment;
  }

  // Sizes from the shape; the offset is checked when the table's end is known.
  GgufTensor read_tensor(std::int64_t index) {
    const std::int64_t where = at;
    GgufTensor tensor;
    tensor.name = name(fmt::format("the name of tensor {}", index));
    const auto fault = [&](const std::string& what) {
      refuse(fmt::format("tensor {} (byte {} of the file) {}", in_quotes(tensor.name), grouped(where), what));
    };
    const auto dimensions = number<std::uint32_t>("a number of dimensions");
    if (dimensions > kMaxGgufDimensions) {
      fault(fmt::format("has {} dimensions; at most {} are possible", dimensions, kMaxGgufDimensions));
    }
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      const auto extent = number<std::uint64_t>("an extent");
      if (extent == 0 || !std::in_range<std::int64_t>(extent)) {
        fault(fmt::format("has the extent {}; extents are at least 1 and below 2^63", extent));
      }
      tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(extent));
    }
    if (tensor.shape.empty()) {
      tensor.shape = {1};
    }
    const auto type_number = number<std::uint32_t>("a tensor type");
    tensor.type = quant::find_type(type_number);
    if (tensor.type == nullptr) {
      fault(fmt::format("is of type {}, which no known version of the format has", type_number));
    }
    if (tensor.columns() % tensor.type->elements != 0) {
      fault(fmt::format("has rows of {} elements, which is no multiple of the {} of a {} block",
                        grouped(tensor.columns()), tensor.type->elements, tensor.type->name));
    }
    std::optional<std::int64_t> bytes = quant::row_bytes(*tensor.type, tensor.columns());
    for (std::size_t i = 0; bytes && i + 1 < tensor.shape.size(); ++i) {
      std::int64_t product = 0;
      bytes = __builtin_mul_overflow(*bytes, tensor.shape[i], &product) ? std::nullopt : std::optional(product);
    }
    if (!bytes) {
      fault(fmt::format("of shape {} would have more than 2^63 bytes", shape_text(tensor.shape)));
    }
    tensor.bytes = *bytes;
    const auto offset = number<std::uint64_t>("a tensor's offset");
    // No file is that large; the sum below cannot wrap.
    if (offset > static_cast<std::uint64_t>(file_bytes)) {
      fault(fmt::format("begins {} bytes into the data but the whole file has {} bytes; {}", offset,
                        grouped(file_bytes), kTruncated));
    }
    tensor.begin = static_cast<std::int64_t>(offset);
    return tensor;
  }

  void place(GgufTensor& tensor, std::int64_t data_begin, std::int64_t alignment) const {
    if (tensor.begin % alignment != 0) {
      refuse(fmt::format("tensor {} begins {} bytes into the data, which is no multiple of the alignment {}",
                         in_quotes(tensor.name), grouped(tensor.begin), alignment));
    }
    tensor.begin += data_begin;
    if (tensor.begin > file_bytes || tensor.bytes > file_bytes - tensor.begin) {
      refuse(fmt::format("tensor {} has {} bytes from byte {} on but the file has {} bytes; {}", in_quotes(tensor.name),
                         grouped(tensor.bytes), grouped(tensor.begin), grouped(file_bytes), kTruncated));
    }
  }

  void check_overlaps(const std::vector<GgufTensor>& tensors) const {
    std::vector<const GgufTensor*> order;
    for (const GgufTensor& one : tensors) {
      order.push_back(&one);
    }
    std::ranges::sort(order, [](const auto* a, const auto* b) {
      return std::pair(a->begin, a->bytes) < std::pair(b->begin, b->bytes);
    });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const GgufTensor& before = *order[i - 1];
      if (order[i]->begin < before.begin + before.bytes) {
        refuse(fmt::format("tensor {} begins at byte {}, inside tensor {}, which ends at byte {}",
                           in_quotes(order[i]->name), grouped(order[i]->begin), in_quotes(before.name),
                           grouped(before.begin + before.bytes)));
      }
    }
  }

  std::uint32_t read_version() {
    const std::byte* magic = take(kGgufMagicBytes, "the magic \"GGUF\"");
    if (std::memcmp(magic, kGgufMagic, kGgufMagicBytes) != 0) {
      refuse(fmt::format("begins with {} where a GGUF file has \"GGUF\"",
                         in_quotes({reinterpret_cast<const char*>(magic), kGgufMagicBytes})));
    }
    const auto version = number<std::uint32_t>("the version");
    if (version != 0 && (version & 0xffffU) == 0) {
      refuse("is a GGUF file in big-endian order, which is not read; convert it on the machine that made it");
    }
    if (version != 2 && version != kGgufVersion) {
      refuse(fmt::format("is a GGUF file of version {}; versions 2 and 3 are read", version));
    }
    return version;
  }

  GgufHeader run() {
    GgufHeader header;
    header.version = read_version();
    const auto tensors = number<std::uint64_t>("the number of tensors");
    const auto keys = number<std::uint64_t>("the number of keys");
    constexpr int kKeyBytes = 14;     // length, one character, type, a byte of value
    constexpr int kTensorBytes = 25;  // length, one character, dimensions, type, offset
    constexpr std::int64_t kTensorsAt = 8;
    constexpr std::int64_t kKeysAt = 16;
    const std::int64_t key_count = count(keys, kMaxGgufKeys, kKeyBytes, "keys", kKeysAt);
    const std::int64_t tensor_count = count(tensors, kMaxGgufTensors, kTensorBytes, "tensors", kTensorsAt);
    read_metadata(header.metadata, key_count);
    header.alignment = read_alignment(header.metadata);
    std::set<std::string_view> names;
    header.tensors.reserve(static_cast<std::size_t>(tensor_count));  // so that names stay where they are
    for (std::int64_t i = 0; i < tensor_count; ++i) {
      const GgufTensor& tensor = header.tensors.emplace_back(read_tensor(i));
      if (!names.insert(tensor.name).second) {
        refuse(fmt::format("the tensor {} stands there twice", in_quotes(tensor.name)));
      }
    }
    const std::int64_t data_begin = aligned(at, header.alignment);
    for (GgufTensor& tensor : header.tensors) {
      place(tensor, data_begin, header.alignment);
    }
    check_overlaps(header.tensors);
    return header;
  }
};

GgufHeader parse_gguf_header(std::span<const std::byte> head, std::int64_t file_bytes, const std::string& source) {
  const std::int64_t usable = std::min({static_cast<std::int64_t>(head.size()), file_bytes, kMaxGgufHeadBytes});
  GgufParser parser{head.first(static_cast<std::size_t>(usable)), file_bytes, source};
  return parser.run();
}

const GgufValue* GgufMetadata::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

void GgufMetadata::wrong_kind(const std::string& key, const GgufValue& value, const char* expected) const {
  const std::string found = value.type == GgufType::kArray
                                ? fmt::format("an array of {} {}", value.count, to_string(value.element))
                                : std::string(to_string(value.type));
  throw FormatError(fmt::format("{}: key {} must be {} but is {}", source_, in_quotes(key), expected, found));
}

std::optional<std::int64_t> GgufMetadata::integer(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  const auto result = load_integer(value->type, value->bytes.data());
  if (!result) {
    wrong_kind(key, *value, "an integer below 2^63");
  }
  return result;
}

std::optional<double> GgufMetadata::number(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type == GgufType::kF32 || value->type == GgufType::kF64) {
    return load_number(value->type, value->bytes.data());
  }
  if (value->type == GgufType::kU64) {
    return static_cast<double>(load<std::uint64_t>(value->bytes.data()));
  }
  const auto whole = load_integer(value->type, value->bytes.data());
  if (!whole) {
    wrong_kind(key, *value, "a number");
  }
  return static_cast<double>(*whole);
}

std::optional<bool> GgufMetadata::boolean(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type != GgufType::kBool) {
    wrong_kind(key, *value, "a bool");
  }
  return std::to_integer<int>(value->bytes.front()) != 0;
}

std::optional<std::string> GgufMetadata::text(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type != GgufType::kText) {
    wrong_kind(key, *value, "a text");
  }
  return std::string(reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size());
}

std::optional<std::vector<std::string_view>> GgufMetadata::texts(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type != GgufType::kArray || value->element != GgufType::kText) {
    wrong_kind(key, *value, "an array of texts");
  }
  std::vector<std::string_view> result;
  result.reserve(static_cast<std::size_t>(value->count));
  const std::byte* at = value->bytes.data();
  for (std::int64_t i = 0; i < value->count; ++i) {  // lengths were checked when the file was opened
    const auto length = static_cast<std::size_t>(load<std::uint64_t>(at));
    result.emplace_back(reinterpret_cast<const char*>(at + sizeof(std::uint64_t)), length);
    at += sizeof(std::uint64_t) + length;
  }
  return result;
}

std::optional<std::vector<std::int64_t>> GgufMetadata::integers(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  const GgufType element = value->type == GgufType::kArray ? value->element : value->type;
  std::vector<std::int64_t> result;
  for (std::int64_t i = 0; is_integer(element) && i < value->count; ++i) {
    const auto one = load_integer(element, value->bytes.data() + i * size_of(element));
    if (!one) {
      break;
    }
    result.push_back(*one);
  }
  if (!is_integer(element) || static_cast<std::int64_t>(result.size()) != value->count) {
    wrong_kind(key, *value, "an array of integers below 2^63");
  }
  return result;
}

std::optional<std::vector<double>> GgufMetadata::numbers(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type != GgufType::kArray || (value->element != GgufType::kF32 && value->element != GgufType::kF64)) {
    wrong_kind(key, *value, "an array of f32 or f64");
  }
  std::vector<double> result;
  result.reserve(static_cast<std::size_t>(value->count));
  for (std::int64_t i = 0; i < value->count; ++i) {
    result.push_back(load_number(value->element, value->bytes.data() + i * size_of(value->element)));
  }
  return result;
}

std::int64_t GgufTensor::rows() const {
  std::int64_t result = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) {
    result *= shape[i];  // within the file's size
  }
  return result;
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile out;
  out.file_ = MappedFile::open(path);
  const std::span<const std::byte> bytes = out.file_.bytes();
  out.header_ = std::make_shared<const GgufHeader>(
      parse_gguf_header(bytes, static_cast<std::int64_t>(bytes.size()), path.string()));
  for (std::size_t i = 0; i < out.header_->tensors.size(); ++i) {
    out.by_name_.emplace(out.header_->tensors[i].name, i);
  }
  return out;
}

const GgufTensor* GgufFile::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &header_->tensors[found->second];
}

quant::BlockMatrix GgufFile::blocks(const GgufTensor& tensor) const {
  if (!tensor.type->readable) {
    throw UnsupportedError(fmt::format("{}: tensor {} is of type {}, which is not supported", path().string(),
                                       in_quotes(tensor.name), tensor.type->name));
  }
  return {static_cast<quant::BlockType>(tensor.type->number),
          tensor.rows(),
          tensor.columns(),
          tensor.bytes / tensor.rows(),
          file_.bytes().subspan(static_cast<std::size_t>(tensor.begin), static_cast<std::size_t>(tensor.bytes)),
          file_.owner()};
}

bool is_gguf(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) {
    return false;
  }
  char magic[kGgufMagicBytes] = {};
  std::ifstream file(path, std::ios::binary);
  file.read(magic, sizeof magic);
  return file && std::memcmp(magic, kGgufMagic, sizeof magic) == 0;
}

}  // namespace caravan::checkpoint
