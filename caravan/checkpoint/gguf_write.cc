#include <fmt/format.h>

#include <cstring>
#include <set>
#include <type_traits>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/checkpoint/gguf.h"
#include "caravan/checkpoint/gguf_format.h"
#include "caravan/checkpoint/safetensors_format.h"

namespace caravan::checkpoint {
namespace {

template <typename T>
void put(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

void put_type(std::string& out, GgufType type) {
  put(out, static_cast<std::uint32_t>(type));
}

template <typename T>
constexpr GgufType type_of() {
  if constexpr (std::is_same_v<T, std::uint32_t>) {
    return GgufType::kU32;
  } else if constexpr (std::is_same_v<T, std::int32_t>) {
    return GgufType::kI32;
  } else if constexpr (std::is_same_v<T, std::uint64_t>) {
    return GgufType::kU64;
  } else if constexpr (std::is_same_v<T, float>) {
    return GgufType::kF32;
  } else if constexpr (std::is_same_v<T, bool>) {
    return GgufType::kBool;
  } else {
    static_assert(std::is_same_v<T, std::string>);
    return GgufType::kText;
  }
}

// Type and value.
struct ValueWriter {
  std::string& out;

  template <typename T>
  void operator()(const T& value) const {
    put_type(out, type_of<T>());
    element(value);
  }
  template <typename T>
  void operator()(const std::vector<T>& values) const {
    put_type(out, GgufType::kArray);
    put_type(out, type_of<T>());
    put(out, static_cast<std::uint64_t>(values.size()));
    for (const T& one : values) {
      element(one);
    }
  }
  void operator()(const GgufValue& value) const {
    put_type(out, value.type);
    if (value.type == GgufType::kText) {
      put(out, static_cast<std::uint64_t>(value.bytes.size()));
    } else if (value.type == GgufType::kArray) {
      put_type(out, value.element);
      put(out, static_cast<std::uint64_t>(value.count));
    }
    out.append(reinterpret_cast<const char*>(value.bytes.data()), value.bytes.size());
  }

 private:
  template <typename T>
  void element(const T& value) const {
    if constexpr (std::is_same_v<T, std::string>) {
      put_text(out, value);
    } else if constexpr (std::is_same_v<T, bool>) {
      put(out, static_cast<std::uint8_t>(value ? 1 : 0));
    } else {
      put(out, value);
    }
  }
};

std::vector<std::int64_t> sizes_of(const std::vector<GgufTensorPlan>& plan) {
  std::vector<std::int64_t> sizes;
  std::int64_t total = 0;
  for (const GgufTensorPlan& tensor : plan) {
    sizes.push_back(tensor.bytes());
    if (__builtin_add_overflow(total, sizes.back() + kGgufAlignment, &total)) {
      throw FormatError(fmt::format("the size of the tensors wraps around 2^63 bytes at {}", in_quotes(tensor.name)));
    }
  }
  return sizes;
}

void check_name(const std::string& target, const std::string& name, std::size_t longest, const char* what,
                std::set<std::string_view>& seen) {
  std::optional<std::string> fault = name_fault(name);
  if (name.empty()) {
    fault = "has no name";
  } else if (name.size() > longest) {
    fault = fmt::format("has a name of {} bytes; the limit is {}", name.size(), longest);
  } else if (!seen.insert(name).second) {
    fault = "stands there twice";
  }
  if (fault) {
    throw FormatError(fmt::format("{}: {} {} {}", target, what, in_quotes(name), *fault));
  }
}

// Everything before the data, padded to its beginning.
std::string make_head(const std::string& target, const std::vector<GgufEntry>& metadata,
                      const std::vector<GgufTensorPlan>& plan) {
  std::string head(kGgufMagic, kGgufMagicBytes);
  put(head, kGgufVersion);
  put(head, static_cast<std::uint64_t>(plan.size()));
  put(head, static_cast<std::uint64_t>(metadata.size()));
  std::set<std::string_view> keys;
  for (const GgufEntry& entry : metadata) {
    check_name(target, entry.key, kMaxNameBytes, "key", keys);
    if (entry.key == kGgufAlignmentKey) {
      throw FormatError(fmt::format("{}: the key \"{}\" is the writer's own", target, entry.key));
    }
    put_text(head, entry.key);
    std::visit(ValueWriter{head}, entry.value);
  }
  std::set<std::string_view> names;
  std::int64_t offset = 0;
  for (const GgufTensorPlan& tensor : plan) {
    check_name(target, tensor.name, kMaxGgufNameBytes, "tensor", names);
    put_text(head, tensor.name);
    put(head, static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent) {
      put(head, static_cast<std::uint64_t>(*extent));
    }
    put(head, static_cast<std::uint32_t>(tensor.type));
    put(head, static_cast<std::uint64_t>(offset));
    offset = aligned(offset + tensor.bytes(), kGgufAlignment);
  }
  if (static_cast<std::int64_t>(head.size()) > kMaxGgufHeadBytes ||
      static_cast<std::int64_t>(plan.size()) > kMaxGgufTensors ||
      static_cast<std::int64_t>(metadata.size()) > kMaxGgufKeys) {
    throw FormatError(
        fmt::format("{}: {} bytes of metadata, {} keys and {} tensors are beyond the limits {}, {} and {}", target,
                    grouped(static_cast<std::int64_t>(head.size())), metadata.size(), plan.size(),
                    grouped(kMaxGgufHeadBytes), kMaxGgufKeys, kMaxGgufTensors));
  }
  head.resize(static_cast<std::size_t>(aligned(static_cast<std::int64_t>(head.size()), kGgufAlignment)), '\0');
  return head;
}

std::int64_t file_bytes(const std::string& head, const std::vector<std::int64_t>& sizes) {
  auto total = static_cast<std::int64_t>(head.size());
  for (const std::int64_t size : sizes) {
    total += aligned(size, kGgufAlignment);
  }
  return total;
}

}  // namespace

std::int64_t GgufTensorPlan::bytes() const {
  const auto impossible = [&](const std::string& why) {
    throw FormatError(fmt::format("tensor {} cannot have the shape {}: {}", in_quotes(name), shape_text(shape), why));
  };
  if (shape.empty() || shape.size() > kMaxGgufDimensions) {
    impossible(fmt::format("the format has one to {} extents", kMaxGgufDimensions));
  }
  for (const std::int64_t extent : shape) {
    if (extent < 1) {
      impossible("an extent is below 1");
    }
  }
  const quant::TypeFacts& facts = quant::facts(type);
  std::optional<std::int64_t> result = quant::row_bytes(facts, shape.back());
  if (!result) {
    impossible(fmt::format("its rows are no whole number of {}'s blocks of {}", facts.name, facts.elements));
  }
  for (std::size_t i = 0; result && i + 1 < shape.size(); ++i) {
    std::int64_t product = 0;
    result = __builtin_mul_overflow(*result, shape[i], &product) ? std::nullopt : std::optional(product);
  }
  // Room for padding is left, so that sums of offsets are safe.
  if (!result || *result > (std::int64_t{1} << 62)) {
    impossible("its size passes 2^62 bytes");
  }
  return *result;
}

GgufWriter::GgufWriter(const std::filesystem::path& target, const std::vector<GgufEntry>& metadata,
                       const std::vector<GgufTensorPlan>& plan)
    : GgufWriter(target, sizes_of(plan), make_head(target.string(), metadata, plan)) {}

GgufWriter::GgufWriter(const std::filesystem::path& target, std::vector<std::int64_t> sizes, const std::string& head)
    : target_(target.string()), file_(target, file_bytes(head, sizes)), sizes_(std::move(sizes)) {
  file_.write(std::string_view(head));
  remaining_ = sizes_.empty() ? 0 : sizes_.front();
}

void GgufWriter::append(std::span<const std::byte> bytes) {
  if (static_cast<std::int64_t>(bytes.size()) > remaining_) {
    throw FormatError(fmt::format("{}: {} bytes were appended where tensor {} has room for {}", target_, bytes.size(),
                                  at_, remaining_));
  }
  file_.write(bytes);
  remaining_ -= static_cast<std::int64_t>(bytes.size());
  if (remaining_ == 0 && at_ < sizes_.size()) {
    begin_tensor();
  }
}

// Pads to the next tensor's offset; llama.cpp's own files are padded behind the last one too.
void GgufWriter::begin_tensor() {
  const std::int64_t padding = aligned(sizes_[at_], kGgufAlignment) - sizes_[at_];
  file_.write(std::string_view(std::string(static_cast<std::size_t>(padding), '\0')));
  ++at_;
  remaining_ = at_ < sizes_.size() ? sizes_[at_] : 0;
}

void GgufWriter::finish() {
  if (at_ != sizes_.size()) {
    throw FormatError(
        fmt::format("{}: {} bytes of tensor {} of {} were not appended", target_, remaining_, at_ + 1, sizes_.size()));
  }
  file_.commit();
}

}  // namespace caravan::checkpoint
