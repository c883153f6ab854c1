#include "caravan/quant/block_type.h"

#include <array>

namespace caravan::quant {
namespace {

// Every type of llama.cpp's ggml.h in 2026.
constexpr std::array<TypeFacts, 35> kTypes = {{
    {0, "F32", 1, 4, true, true},           {1, "F16", 1, 2, true, true},
    {2, "Q4_0", 32, 18, true, true},        {3, "Q4_1", 32, 20, true, true},
    {6, "Q5_0", 32, 22, true, true},        {7, "Q5_1", 32, 24, true, true},
    {8, "Q8_0", 32, 34, true, true},        {9, "Q8_1", 32, 36, false, false},
    {10, "Q2_K", 256, 84, true, false},     {11, "Q3_K", 256, 110, true, false},
    {12, "Q4_K", 256, 144, true, true},     {13, "Q5_K", 256, 176, true, false},
    {14, "Q6_K", 256, 210, true, true},     {15, "Q8_K", 256, 292, false, false},
    {16, "IQ2_XXS", 256, 66, false, false}, {17, "IQ2_XS", 256, 74, false, false},
    {18, "IQ3_XXS", 256, 98, false, false}, {19, "IQ1_S", 256, 50, false, false},
    {20, "IQ4_NL", 32, 18, false, false},   {21, "IQ3_S", 256, 110, false, false},
    {22, "IQ2_S", 256, 82, false, false},   {23, "IQ4_XS", 256, 136, false, false},
    {24, "I8", 1, 1, false, false},         {25, "I16", 1, 2, false, false},
    {26, "I32", 1, 4, false, false},        {27, "I64", 1, 8, false, false},
    {28, "F64", 1, 8, true, true},          {29, "IQ1_M", 256, 56, false, false},
    {30, "BF16", 1, 2, true, true},         {34, "TQ1_0", 256, 54, false, false},
    {35, "TQ2_0", 256, 66, false, false},   {39, "MXFP4", 32, 17, false, false},
    {40, "NVFP4", 64, 36, false, false},    {41, "Q1_0", 128, 18, false, false},
    {42, "Q2_0", 64, 18, false, false},
}};

struct Word {
  const char* word;
  BlockType type;
};
constexpr std::array<Word, 14> kWords = {{{"f32", BlockType::kF32},
                                          {"f16", BlockType::kF16},
                                          {"bf16", BlockType::kBF16},
                                          {"f64", BlockType::kF64},
                                          {"q8_0", BlockType::kQ80},
                                          {"q4_0", BlockType::kQ40},
                                          {"q4_1", BlockType::kQ41},
                                          {"q5_0", BlockType::kQ50},
                                          {"q5_1", BlockType::kQ51},
                                          {"q2_k", BlockType::kQ2K},
                                          {"q3_k", BlockType::kQ3K},
                                          {"q4_k", BlockType::kQ4K},
                                          {"q5_k", BlockType::kQ5K},
                                          {"q6_k", BlockType::kQ6K}}};

struct Plain {
  BlockType type;
  DType dtype;
};
constexpr std::array<Plain, 4> kPlain = {{{BlockType::kF32, DType::kF32},
                                          {BlockType::kF16, DType::kF16},
                                          {BlockType::kBF16, DType::kBF16},
                                          {BlockType::kF64, DType::kF64}}};

}  // namespace

const TypeFacts* find_type(std::uint32_t number) {
  for (const TypeFacts& one : kTypes) {
    if (one.number == number) {
      return &one;
    }
  }
  return nullptr;
}

const TypeFacts& facts(BlockType type) {
  return *find_type(static_cast<std::uint32_t>(type));  // every enumerator has its row
}

std::string_view to_string(BlockType type) {
  for (const Word& one : kWords) {
    if (one.type == type) {
      return one.word;
    }
  }
  return facts(type).name;
}

std::optional<BlockType> parse_block_type(std::string_view word) {
  for (const Word& one : kWords) {
    if (word == one.word) {
      return one.type;
    }
  }
  return std::nullopt;
}

std::optional<DType> plain_dtype(BlockType type) {
  for (const Plain& one : kPlain) {
    if (one.type == type) {
      return one.dtype;
    }
  }
  return std::nullopt;
}

std::optional<BlockType> plain_type(DType dtype) {
  for (const Plain& one : kPlain) {
    if (one.dtype == dtype) {
      return one.type;
    }
  }
  return std::nullopt;
}

std::optional<std::int64_t> row_bytes(const TypeFacts& type, std::int64_t columns) {
  std::int64_t bytes = 0;
  if (columns < 0 || columns % type.elements != 0 ||
      __builtin_mul_overflow(columns / type.elements, std::int64_t{type.bytes}, &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

double bits_per_element(BlockType type) {
  return 8.0 * facts(type).bytes / facts(type).elements;
}

}  // namespace caravan::quant
