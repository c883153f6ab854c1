// Which type each tensor of a converted model gets.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "caravan/base/error.h"
#include "caravan/model_io/convert.h"
#include "caravan/tensor/copy.h"

namespace caravan::model_io {

namespace {

using quant::BlockType;

// The smallest plain type that holds all of the parts of a tensor, or their common type.
BlockType source_type(const ModelFiles& source, const FileTensor& tensor) {
  BlockType result = part_type(source, static_cast<std::size_t>(tensor.rows.front().part));
  for (const RowRun& run : tensor.rows) {
    const BlockType other = part_type(source, static_cast<std::size_t>(run.part));
    if (other != result) {
      result = other == BlockType::kF64 || result == BlockType::kF64 ? BlockType::kF64 : BlockType::kF32;
    }
  }
  return result;
}

// The type of all matrices, when it is one and plain.
std::optional<BlockType> matrices_type(const ModelFiles& source) {
  std::optional<BlockType> result;
  for (std::size_t i = 0; i < source.tensors.size(); ++i) {
    if (source.arrangement.tensors[i].shape.size() < 2) {
      continue;
    }
    const BlockType type = source.tensors[i].type;
    if (!quant::plain_dtype(type) || (result && *result != type)) {
      return std::nullopt;
    }
    result = type;
  }
  return result;
}

// Whether an f32 vector has the same values in the other type.
bool fits_vector(const ModelFiles& source, const FileTensor& tensor, BlockType type) {
  const DType dtype = *quant::plain_dtype(type);
  std::vector<std::byte> staging;
  for (const RowRun& run : tensor.rows) {
    std::vector<float> values(static_cast<std::size_t>(run.count));
    read_floats(source, static_cast<std::size_t>(run.part), run.begin, run.begin + run.count, values.data(), staging,
                1);
    std::vector<std::byte> narrow(values.size() * static_cast<std::size_t>(size_of(dtype)));
    std::vector<float> back(values.size());
    const auto count = static_cast<std::int64_t>(values.size());
    convert_elements(dtype, narrow.data(), DType::kF32, reinterpret_cast<const std::byte*>(values.data()), count);
    convert_elements(DType::kF32, reinterpret_cast<std::byte*>(back.data()), dtype, narrow.data(), count);
    if (std::memcmp(values.data(), back.data(), values.size() * sizeof(float)) != 0) {
      return false;
    }
  }
  return true;
}

std::vector<BlockType> plain_types(const ModelFiles& source, const Arrangement& target,
                                   std::optional<BlockType> asked) {
  if (asked && !quant::plain_dtype(*asked)) {
    throw InputError(
        fmt::format("safetensors files cannot have weights of type {}; write a GGUF file, or choose f32, bf16 or f16",
                    quant::facts(*asked).name));
  }
  // Of a GGUF file, whose vectors are f32 whatever they were before.
  const BlockType matrices =
      source.kind == SourceKind::kGguf ? matrices_type(source).value_or(BlockType::kF32) : BlockType::kF32;
  std::vector<BlockType> types;
  for (const FileTensor& tensor : target.tensors) {
    BlockType type = source_type(source, tensor);
    if (asked) {
      type = *asked;
    } else if (!quant::plain_dtype(type)) {
      type = BlockType::kF32;
    } else if (matrices != BlockType::kF32 && type == BlockType::kF32 && tensor.shape.size() == 1 &&
               fits_vector(source, tensor, matrices)) {
      type = matrices;
    }
    types.push_back(type);
  }
  return types;
}

bool is_few_bits(BlockType type) {
  constexpr double kFew = 6.5;
  return quant::bits_per_element(type) < kFew;
}

// A type for rows of `columns` elements: itself, or one of smaller blocks.
BlockType fitting(BlockType type, std::int64_t columns) {
  constexpr std::int64_t kSmallBlock = 32;
  if (columns % quant::facts(type).elements == 0) {
    return type;
  }
  if (columns % kSmallBlock == 0 && (type == BlockType::kQ4K || type == BlockType::kQ6K)) {
    return type == BlockType::kQ4K ? BlockType::kQ50 : BlockType::kQ80;
  }
  return BlockType::kF16;
}

std::vector<BlockType> gguf_types(const ModelFiles& source, const Arrangement& target, std::optional<BlockType> asked,
                                  std::vector<std::string>& notes) {
  if (asked && !quant::facts(*asked).writable) {
    throw InputError(fmt::format("{} can be read but not written", quant::facts(*asked).name));
  }
  const bool tied = source.config.model.tie_word_embeddings;
  std::map<std::string, std::int64_t> replaced;
  std::int64_t narrowed = 0;
  std::vector<BlockType> types;
  for (const FileTensor& tensor : target.tensors) {
    const BlockType own = source_type(source, tensor);
    if (tensor.shape.size() == 1) {
      types.push_back(BlockType::kF32);
      continue;
    }
    BlockType type = asked.value_or(own == BlockType::kF64 ? BlockType::kF32 : own);
    narrowed += !asked && own == BlockType::kF64 ? 1 : 0;
    const bool head = tensor.name == (tied ? "token_embd.weight" : "output.weight");
    if (asked && head && !quant::plain_dtype(type) && is_few_bits(type)) {
      type = BlockType::kQ6K;
    }
    const BlockType fits = fitting(type, tensor.shape[1]);
    if (fits != type) {
      ++replaced[fmt::format("have rows that are no multiple of {} and are {} instead of {}",
                             quant::facts(type).elements, quant::facts(fits).name, quant::facts(type).name)];
    }
    types.push_back(fits);
  }
  for (const auto& [what, count] : replaced) {
    notes.push_back(fmt::format("{} tensors {}", count, what));
  }
  if (narrowed > 0) {
    notes.push_back(fmt::format("{} tensors of f64 are f32: GGUF's programs compute with no f64", narrowed));
  }
  return types;
}

}  // namespace

std::vector<BlockType> plan_types(const ModelFiles& source, const Arrangement& target, Dialect dialect,
                                  std::optional<BlockType> asked, std::vector<std::string>& notes) {
  std::vector<BlockType> types =
      dialect == Dialect::kGguf ? gguf_types(source, target, asked, notes) : plain_types(source, target, asked);
  std::int64_t again = 0;
  for (std::size_t i = 0; i < types.size(); ++i) {
    const BlockType own = source_type(source, target.tensors[i]);
    again += !quant::plain_dtype(own) && !quant::plain_dtype(types[i]) && own != types[i] ? 1 : 0;
  }
  if (again > 0) {
    notes.push_back(
        fmt::format("{} tensors were quantised already and are quantised again: the two errors add up", again));
  }
  return types;
}

}  // namespace caravan::model_io
