// GGUF files, valid and hostile, made in memory.  The table is walked by the reader's tests and is the seed corpus of its
// fuzzer.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tests/checkpoint/safetensors_cases.h"

namespace caravan::checkpoint {

// Bytes as the format lays them out; nothing is checked, so that every lie can be told.
class GgufBytes {
 public:
  // Magic, version and the two counts.
  static GgufBytes head(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3,
                        const std::string& magic = "GGUF") {
    GgufBytes out;
    out.bytes_ = magic;
    return out.u32(version).u64(tensors).u64(keys);
  }
  template <typename T>
  GgufBytes& raw(T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    bytes_.append(bytes, sizeof value);
    return *this;
  }
  GgufBytes& u8(std::uint8_t value) { return raw(value); }
  GgufBytes& u32(std::uint32_t value) { return raw(value); }
  GgufBytes& u64(std::uint64_t value) { return raw(value); }
  GgufBytes& text(const std::string& characters) { return text(characters.size(), characters); }
  GgufBytes& text(std::uint64_t length, const std::string& characters) {
    u64(length);
    bytes_ += characters;
    return *this;
  }
  GgufBytes& key(const std::string& name, std::uint32_t type) { return text(name).u32(type); }
  // One row of the tensor table.
  GgufBytes& tensor(const std::string& name, const std::vector<std::uint64_t>& extents, std::uint32_t type,
                    std::uint64_t offset) {
    text(name).u32(static_cast<std::uint32_t>(extents.size()));
    for (const std::uint64_t extent : extents) {
      u64(extent);
    }
    return u32(type).u64(offset);
  }
  // Padding to the alignment, then so many bytes of data.
  GgufBytes& data(std::size_t count, std::size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment, '\0');
    bytes_.append(count, 'd');
    return *this;
  }
  const std::string& str() const { return bytes_; }

 private:
  std::string bytes_;
};

std::vector<ValidCase> valid_gguf();
std::vector<HostileCase> hostile_gguf();

}  // namespace caravan::checkpoint
