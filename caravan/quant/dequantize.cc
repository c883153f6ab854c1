#include "caravan/quant/dequantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/base/threads.h"
#include "caravan/quant/block_layout.h"
#include "caravan/tensor/copy.h"

namespace caravan::quant {
namespace {

// Code i of 32 whose low halves come first: byte i for the first 16, the high half of byte i - 16 for the others.
inline int nibble(const std::byte* codes, int i) {
  return i < kBlock / 2 ? byte_at(codes, i) & 15 : byte_at(codes, i - kBlock / 2) >> 4;
}

void block_q8_0(const std::byte* block, float* out) {
  const float d = load_f16(block);
  for (int i = 0; i < kBlock; ++i) {
    out[i] = static_cast<float>(static_cast<std::int8_t>(byte_at(block, 2 + i))) * d;
  }
}

void block_q4_0(const std::byte* block, float* out) {
  const float d = load_f16(block);
  for (int i = 0; i < kBlock; ++i) {
    out[i] = d * static_cast<float>(nibble(block + 2, i) - 8);
  }
}

void block_q4_1(const std::byte* block, float* out) {
  const float d = load_f16(block);
  const float m = load_f16(block + 2);
  for (int i = 0; i < kBlock; ++i) {
    out[i] = d * static_cast<float>(nibble(block + 4, i)) + m;
  }
}

// The fifth bits of 32 codes.
std::uint32_t load_high_bits(const std::byte* at) {
  return byte_at(at, 0) | std::uint32_t{byte_at(at, 1)} << 8 | std::uint32_t{byte_at(at, 2)} << 16 |
         std::uint32_t{byte_at(at, 3)} << 24;
}

void block_q5_0(const std::byte* block, float* out) {
  const float d = load_f16(block);
  const std::uint32_t high = load_high_bits(block + 2);
  for (int i = 0; i < kBlock; ++i) {
    const int q = nibble(block + 6, i) | static_cast<int>((high >> i) & 1U) << 4;
    out[i] = d * static_cast<float>(q - 16);
  }
}

void block_q5_1(const std::byte* block, float* out) {
  const float d = load_f16(block);
  const float m = load_f16(block + 2);
  const std::uint32_t high = load_high_bits(block + 4);
  for (int i = 0; i < kBlock; ++i) {
    const int q = nibble(block + 8, i) | static_cast<int>((high >> i) & 1U) << 4;
    out[i] = d * static_cast<float>(q) + m;
  }
}

// Two-bit code i of 256: halves of 128, in each four stretches of 32 from the same 32 bytes.
inline int two_bits(const std::byte* codes, int i) {
  return (byte_at(codes, i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2)) & 3;
}

void block_q2_k(const std::byte* block, float* out) {
  const std::byte* codes = block + 16;
  const float d = load_f16(block + 80);
  const float dmin = load_f16(block + 82);
  for (int s = 0; s < 16; ++s) {
    const float scale = d * static_cast<float>(byte_at(block, s) & 15);
    const float offset = dmin * static_cast<float>(byte_at(block, s) >> 4);
    for (int i = 16 * s; i < 16 * s + 16; ++i) {
      out[i] = scale * static_cast<float>(two_bits(codes, i)) - offset;
    }
  }
}

// Scale s of Q3_K: four bits in the first eight bytes (two scales a byte), two in the last four (four a byte).
inline int q3_k_scale(const std::byte* packed, int s) {
  const int low = s < 8 ? byte_at(packed, s) & 15 : byte_at(packed, s - 8) >> 4;
  return (low | ((byte_at(packed, 8 + s % 4) >> (s / 4 * 2)) & 3) << 4) - 32;
}

void block_q3_k(const std::byte* block, float* out) {
  const std::byte* codes = block + 32;
  const float d = load_f16(block + 108);
  for (int s = 0; s < 16; ++s) {
    const float scale = d * static_cast<float>(q3_k_scale(block + 96, s));
    for (int i = 16 * s; i < 16 * s + 16; ++i) {
      const int high = (byte_at(block, i % 32) >> (i / 32)) & 1;
      out[i] = scale * static_cast<float>(two_bits(codes, i) - (high == 1 ? 0 : 4));
    }
  }
}

void block_q4_k(const std::byte* block, float* out) {
  const float d = load_f16(block);
  const float dmin = load_f16(block + 2);
  const KScales scales = unpack_k_scales(block + 4);
  for (int s = 0; s < 8; ++s) {
    const std::byte* codes = block + 4 + kKScaleBytes + s / 2 * 32;
    const int shift = s % 2 * 4;
    const float scale = d * static_cast<float>(scales.scale[static_cast<std::size_t>(s)]);
    const float offset = dmin * static_cast<float>(scales.offset[static_cast<std::size_t>(s)]);
    for (int i = 0; i < 32; ++i) {
      out[32 * s + i] = scale * static_cast<float>((byte_at(codes, i) >> shift) & 15) - offset;
    }
  }
}

void block_q5_k(const std::byte* block, float* out) {
  const float d = load_f16(block);
  const float dmin = load_f16(block + 2);
  const KScales scales = unpack_k_scales(block + 4);
  const std::byte* high = block + 4 + kKScaleBytes;
  for (int s = 0; s < 8; ++s) {
    const std::byte* codes = high + 32 + s / 2 * 32;
    const int shift = s % 2 * 4;
    const float scale = d * static_cast<float>(scales.scale[static_cast<std::size_t>(s)]);
    const float offset = dmin * static_cast<float>(scales.offset[static_cast<std::size_t>(s)]);
    for (int i = 0; i < 32; ++i) {
      const int q = ((byte_at(codes, i) >> shift) & 15) | ((byte_at(high, i) >> s) & 1) << 4;
      out[32 * s + i] = scale * static_cast<float>(q) - offset;
    }
  }
}

void block_q6_k(const std::byte* block, float* out) {
  const float d = load_f16(block + 208);
  for (int s = 0; s < 16; ++s) {
    const float scale = d * static_cast<float>(static_cast<std::int8_t>(byte_at(block, 192 + s)));
    for (int i = 16 * s; i < 16 * s + 16; ++i) {
      const int low = (byte_at(block, i / 128 * 64 + i % 64) >> (i % 128 / 64 * 4)) & 15;
      const int high = (byte_at(block, 128 + i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2)) & 3;
      out[i] = scale * static_cast<float>((low | high << 4) - 32);
    }
  }
}

template <typename Block>
void each_block(const std::byte* blocks, float* out, std::int64_t elements, const TypeFacts& type, const Block& block) {
  for (std::int64_t i = 0; i < elements / type.elements; ++i) {
    block(blocks + i * type.bytes, out + i * type.elements);
  }
}

}  // namespace

void dequantize(BlockType type, const std::byte* blocks, float* out, std::int64_t elements) {
  const TypeFacts& shape = facts(type);
  if (elements < 0 || elements % shape.elements != 0) {
    throw ShapeError(fmt::format("dequantize: {} elements are no multiple of {}'s block of {}", elements, shape.name,
                                 shape.elements));
  }
  if (const auto dtype = plain_dtype(type)) {
    convert_elements(DType::kF32, reinterpret_cast<std::byte*>(out), *dtype, blocks, elements);
    return;
  }
  switch (type) {
    case BlockType::kQ80:
      return each_block(blocks, out, elements, shape, block_q8_0);
    case BlockType::kQ40:
      return each_block(blocks, out, elements, shape, block_q4_0);
    case BlockType::kQ41:
      return each_block(blocks, out, elements, shape, block_q4_1);
    case BlockType::kQ50:
      return each_block(blocks, out, elements, shape, block_q5_0);
    case BlockType::kQ51:
      return each_block(blocks, out, elements, shape, block_q5_1);
    case BlockType::kQ2K:
      return each_block(blocks, out, elements, shape, block_q2_k);
    case BlockType::kQ3K:
      return each_block(blocks, out, elements, shape, block_q3_k);
    case BlockType::kQ4K:
      return each_block(blocks, out, elements, shape, block_q4_k);
    case BlockType::kQ5K:
      return each_block(blocks, out, elements, shape, block_q5_k);
    case BlockType::kQ6K:
      return each_block(blocks, out, elements, shape, block_q6_k);
    default:
      throw UnsupportedError(fmt::format("dequantize: {} is not a type that can be read", shape.name));
  }
}

void dequantize_rows(const BlockMatrix& matrix, std::int64_t begin, std::int64_t end, float* out, int threads) {
  if (begin < 0 || end < begin || end > matrix.rows) {
    throw ShapeError(fmt::format("dequantize_rows: rows [{}, {}) of a matrix of {}", begin, end, matrix.rows));
  }
  // A thread's share should be worth waking it: about as many elements as take ten microseconds.
  constexpr std::int64_t kGrain = 1 << 14;
  const std::int64_t grain = kGrain / (matrix.columns + 1) + 1;
  parallel_for(threads, end - begin, grain, [&](std::int64_t first, std::int64_t last) {
    dequantize(matrix.type, matrix.row_range(begin + first, begin + last).data(), out + first * matrix.columns,
               (last - first) * matrix.columns);
  });
}

void dequantize_into(const Tensor& target, const BlockMatrix& matrix, int threads) {
  constexpr std::int64_t kStagedElements = std::int64_t{1} << 18;
  const std::int64_t most = std::max<std::int64_t>(1, kStagedElements / std::max<std::int64_t>(1, matrix.columns));
  std::vector<float> values;
  std::vector<std::byte> converted;
  for (std::int64_t begin = 0; begin < matrix.rows; begin += most) {
    const std::int64_t end = std::min(matrix.rows, begin + most);
    const Tensor rows = target.row_range(begin, end);
    values.resize(static_cast<std::size_t>(rows.elements()));
    converted.resize(static_cast<std::size_t>(rows.bytes()));
    dequantize_rows(matrix, begin, end, values.data(), threads);
    convert_elements(rows.dtype(), converted.data(), DType::kF32, std::as_bytes(std::span(values)).data(),
                     rows.elements());
    copy_from_host(rows, converted);
  }
}

}  // namespace caravan::quant
