// The element types of GGUF tensors: plain numbers, and blocks of 32 or 256 low-bit codes with their scales.
//
// A row is a whole number of blocks, so rows are independent of each other: they can be permuted, cut and worked on by
// several threads without looking inside.  Layouts: ggml/src/ggml-common.h of llama.cpp; names and numbers are ggml's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "caravan/tensor/dtype.h"

namespace caravan::quant {

// Values are the numbers in the files; kQ40 is Q4_0 and so on.  Numbers that are missing here were never used or have
// been withdrawn.
enum class BlockType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ40 = 2,
  kQ41 = 3,
  kQ50 = 6,
  kQ51 = 7,
  kQ80 = 8,
  kQ2K = 10,
  kQ3K = 11,
  kQ4K = 12,
  kQ5K = 13,
  kQ6K = 14,
  kF64 = 28,
  kBF16 = 30,
};

struct TypeFacts {
  std::uint32_t number;
  const char* name;  // "Q4_K", as other programs print it
  int elements;      // of a block; 1 for plain numbers
  int bytes;         // of a block
  bool readable;     // dequantize() knows it
  bool writable;     // quantize() knows it
};

// The type of that number, those included that Caravan can only name (IQ4_NL, I8, ...), or nullptr.
const TypeFacts* find_type(std::uint32_t number);
const TypeFacts& facts(BlockType type);

// "q4_k" for kQ4K: the words of the command line.
std::string_view to_string(BlockType type);
// The type of such a word, or nothing.
std::optional<BlockType> parse_block_type(std::string_view word);

// F32, F16, BF16 and F64 and the dtype of the same bits; nothing for blocks of codes and for other dtypes.
std::optional<DType> plain_dtype(BlockType type);
std::optional<BlockType> plain_type(DType dtype);

// Bytes of a row, or nothing when `columns` is negative, no multiple of the block, or too large for 64 bits.
std::optional<std::int64_t> row_bytes(const TypeFacts& type, std::int64_t columns);

// The bits that an element takes, scales included: 4.5 for Q4_0.
double bits_per_element(BlockType type);

// Rows of blocks that lie somewhere else, in a mapped file perhaps: a window, as Tensor is one.  The bytes need not be
// aligned to anything.
struct BlockMatrix {
  BlockType type = BlockType::kF32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;          // elements of a row
  std::int64_t row_bytes = 0;        // rows follow each other without gaps
  std::span<const std::byte> bytes;  // rows * row_bytes
  std::shared_ptr<const void> owner;

  // Rows [begin, end), which lie inside.
  std::span<const std::byte> row_range(std::int64_t begin, std::int64_t end) const {
    return bytes.subspan(static_cast<std::size_t>(begin * row_bytes),
                         static_cast<std::size_t>((end - begin) * row_bytes));
  }
};

}  // namespace caravan::quant
