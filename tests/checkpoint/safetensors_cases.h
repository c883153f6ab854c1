// Safetensors files, valid and hostile, made in memory.  The table is walked by the reader's tests and is the seed
// corpus of its fuzzer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace caravan::checkpoint {

// Eight bytes of length, the header, the data: nothing is checked.
std::string safetensors_file(const std::string& header, const std::string& data);
std::string safetensors_file(std::uint64_t length, const std::string& header, const std::string& data);

struct ValidCase {
  std::string name;
  std::string file;
  std::size_t tensors;
};
std::vector<ValidCase> valid_safetensors();

struct HostileCase {
  std::string name;
  std::string file;
  std::vector<std::string> words;  // what the message must say
};
std::vector<HostileCase> hostile_safetensors();

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace caravan::checkpoint
