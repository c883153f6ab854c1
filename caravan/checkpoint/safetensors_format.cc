#include "caravan/checkpoint/safetensors_format.h"

#include <fmt/format.h>

#include <array>

#include "caravan/base/text.h"

namespace caravan::checkpoint {
namespace {

// Every type of the reference implementation, version 0.8.
constexpr std::array<FormatType, 22> kTypes = {{
    {"F64", 64, DType::kF64},         {"F32", 32, DType::kF32},
    {"BF16", 16, DType::kBF16},       {"F16", 16, DType::kF16},
    {"F8_E4M3", 8, DType::kF8E4M3},   {"F8_E5M2", 8, DType::kF8E5M2},
    {"F8_E8M0", 8, DType::kE8M0},     {"I64", 64, DType::kI64},
    {"I32", 32, DType::kI32},         {"U8", 8, DType::kU8},
    {"BOOL", 8, std::nullopt},        {"I8", 8, std::nullopt},
    {"I16", 16, std::nullopt},        {"U16", 16, std::nullopt},
    {"U32", 32, std::nullopt},        {"U64", 64, std::nullopt},
    {"C64", 64, std::nullopt},        {"F8_E4M3FNUZ", 8, std::nullopt},
    {"F8_E5M2FNUZ", 8, std::nullopt}, {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},     {"F4", 4, std::nullopt},
}};

}  // namespace

const FormatType* find_format_type(std::string_view name) {
  for (const FormatType& type : kTypes) {
    if (name == type.name) {
      return &type;
    }
  }
  return nullptr;
}

std::optional<std::int64_t> tensor_bits(std::span<const std::int64_t> shape, int bits_per_element) {
  std::int64_t bits = bits_per_element;
  bool empty = false;
  for (const std::int64_t extent : shape) {
    if (extent < 0) {
      return std::nullopt;
    }
    empty = empty || extent == 0;
    if (__builtin_mul_overflow(bits, extent == 0 ? 1 : extent, &bits)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : bits;
}

std::optional<std::string> name_fault(std::string_view name) {
  if (name.size() > kMaxNameBytes) {
    return fmt::format("has a name of {} bytes; the limit is {}", name.size(), kMaxNameBytes);
  }
  for (std::size_t i = 0; i < name.size(); ++i) {
    const auto byte = static_cast<unsigned char>(name[i]);
    // U+0080 to U+009F, 0xc2 0x80 to 0xc2 0x9f in UTF-8, drive terminals just as the ASCII ones do.
    const bool ascii = byte < 0x20 || byte == 0x7f;
    const bool c1 = byte == 0xc2 && i + 1 < name.size() && static_cast<unsigned char>(name[i + 1]) < 0xa0;
    if (ascii || c1) {
      return fmt::format("has a control character at byte {} of its name", i);
    }
  }
  return std::nullopt;
}

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 && !name_fault(name) &&
         name.find_first_of("/\\") == std::string_view::npos;
}

std::string in_quotes(std::string_view text) {
  return fmt::format("\"{}\"", printable(text));
}

std::string shape_text(std::span<const std::int64_t> shape) {
  constexpr std::size_t kShown = 8;
  if (shape.size() <= kShown) {
    return fmt::format("[{}]", fmt::join(shape, ", "));
  }
  return fmt::format("[{}, ... {} extents]", fmt::join(shape.first(kShown), ", "), shape.size());
}

}  // namespace caravan::checkpoint
