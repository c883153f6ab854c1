#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/checkpoint/safetensors_format.h"

namespace caravan::checkpoint {
namespace {

std::string json_string(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    throw FormatError(fmt::format("{} cannot be written into JSON: it is not UTF-8", in_quotes(text)));
  }
}

std::int64_t sum_bytes(const std::vector<TensorPlan>& plan) {
  std::int64_t total = 0;
  for (const TensorPlan& tensor : plan) {
    if (__builtin_add_overflow(total, tensor.bytes(), &total)) {
      throw FormatError(
          fmt::format("the size of the file's tensors wraps around 2^63 bytes at tensor {}", in_quotes(tensor.name)));
    }
  }
  return total;
}

// Length, JSON and padding.  The text is put together by hand: an ordered JSON object searches all its keys whenever
// one is added.
std::string make_head(const std::string& target, const std::vector<TensorPlan>& plan,
                      const std::map<std::string, std::string>& metadata) {
  sum_bytes(plan);  // throws before an offset could wrap
  std::string json = "{";
  if (!metadata.empty()) {
    json += fmt::format("\"{}\":{{", kMetadataKey);
    for (const auto& [key, value] : metadata) {
      json += fmt::format("{}{}:{}", json.back() == '{' ? "" : ",", json_string(key), json_string(value));
    }
    json += '}';
  }
  std::set<std::string_view> names;
  std::int64_t begin = 0;
  for (const TensorPlan& tensor : plan) {
    if (tensor.name == kMetadataKey || !names.insert(tensor.name).second) {
      throw FormatError(fmt::format("{}: the name {} {}", target, in_quotes(tensor.name),
                                    tensor.name == kMetadataKey ? "is reserved" : "stands twice among the tensors"));
    }
    if (const auto fault = name_fault(tensor.name)) {
      throw FormatError(fmt::format("{}: tensor {} {}", target, in_quotes(tensor.name), *fault));
    }
    const std::int64_t end = begin + tensor.bytes();
    json +=
        fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", json.size() == 1 ? "" : ",",
                    json_string(tensor.name), safetensors_name(tensor.dtype), fmt::join(tensor.shape, ","), begin, end);
    begin = end;
  }
  json += '}';
  // Spaces until the data section begins at a multiple of eight, the widest element of any type.
  constexpr auto kAlignment = static_cast<std::size_t>(kLengthBytes);
  json.append((kAlignment - json.size() % kAlignment) % kAlignment, ' ');
  if (json.size() > static_cast<std::size_t>(kMaxHeaderBytes) || plan.size() > static_cast<std::size_t>(kMaxTensors)) {
    throw FormatError(
        fmt::format("{}: {} tensors need a header of {} bytes; the limits are {} and {}; write more shards", target,
                    plan.size(), json.size(), kMaxTensors, kMaxHeaderBytes));
  }
  std::string head;
  for (std::size_t i = 0; i < kAlignment; ++i) {
    head += static_cast<char>((json.size() >> (8 * i)) & 0xff);
  }
  return head + json;
}

}  // namespace

const char* safetensors_name(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "F64";
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
    case DType::kF8E4M3:
      return "F8_E4M3";
    case DType::kF8E5M2:
      return "F8_E5M2";
    case DType::kE8M0:
      return "F8_E8M0";
    case DType::kI64:
      return "I64";
    case DType::kI32:
      return "I32";
    case DType::kU8:
      return "U8";
  }
  throw ShapeError(fmt::format("the safetensors format has no name for dtype {}", static_cast<int>(dtype)));
}

std::int64_t TensorPlan::bytes() const {
  const std::optional<std::int64_t> bits = tensor_bits(shape, 8 * size_of(dtype));
  if (!bits) {
    throw FormatError(
        fmt::format("tensor {} cannot have the shape {}: an extent is negative or the size wraps around "
                    "2^63 bits",
                    in_quotes(name), shape_text(shape)));
  }
  return *bits / 8;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& target, const std::vector<TensorPlan>& plan,
                                     const std::map<std::string, std::string>& metadata)
    : SafetensorsWriter(target, sum_bytes(plan), make_head(target.string(), plan, metadata)) {}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& target, std::int64_t data_bytes,
                                     const std::string& head)
    : target_(target.string()),
      file_(target, data_bytes + static_cast<std::int64_t>(head.size())),
      remaining_(data_bytes) {
  file_.write(std::string_view(head));
}

void SafetensorsWriter::append(std::span<const std::byte> bytes) {
  if (bytes.size() > static_cast<std::uint64_t>(remaining_)) {
    throw FormatError(fmt::format("{}: {} bytes were appended where the planned tensors have room for {}", target_,
                                  bytes.size(), remaining_));
  }
  file_.write(bytes);
  remaining_ -= static_cast<std::int64_t>(bytes.size());
}

void SafetensorsWriter::finish() {
  if (remaining_ != 0) {
    throw FormatError(fmt::format("{}: {} bytes of the planned tensors were not appended", target_, remaining_));
  }
  file_.commit();
}

std::vector<std::vector<TensorPlan>> plan_shards(const std::vector<TensorPlan>& plan, std::int64_t max_shard_bytes) {
  if (max_shard_bytes <= 0) {
    throw InputError(fmt::format("a shard of {} bytes is impossible; give a size above 0", max_shard_bytes));
  }
  std::vector<std::vector<TensorPlan>> shards(1);
  std::int64_t filled = 0;
  for (const TensorPlan& tensor : plan) {
    const std::int64_t bytes = tensor.bytes();
    if (!shards.back().empty() && bytes > max_shard_bytes - filled) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(tensor);
    filled += bytes;
  }
  return shards;
}

std::string shard_name(std::size_t index, std::size_t count) {
  return count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

std::string shard_index(const std::vector<std::vector<TensorPlan>>& shards) {
  std::int64_t total = 0;
  std::map<std::string, std::string> weight_map;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    total += sum_bytes(shards[i]);
    for (const TensorPlan& tensor : shards[i]) {
      if (!weight_map.emplace(tensor.name, shard_name(i, shards.size())).second) {
        throw FormatError(fmt::format("the name {} stands twice among the tensors", in_quotes(tensor.name)));
      }
    }
  }
  std::string text = fmt::format("{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n  \"weight_map\": {{", total);
  const char* separator = "\n";
  for (const auto& [tensor, shard] : weight_map) {
    text += fmt::format("{}    {}: {}", separator, json_string(tensor), json_string(shard));
    separator = ",\n";
  }
  return text + (weight_map.empty() ? "}\n}\n" : "\n  }\n}\n");
}

}  // namespace caravan::checkpoint
