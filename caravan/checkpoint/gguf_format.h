// What reader and writer of GGUF agree on.  Private to this room.
#pragma once

#include <cstddef>
#include <cstdint>

#include "caravan/checkpoint/gguf.h"

namespace caravan::checkpoint {

inline constexpr char kGgufMagic[] = "GGUF";
constexpr std::size_t kGgufMagicBytes = 4;
constexpr std::uint32_t kGgufVersion = 3;
constexpr std::int64_t kGgufAlignment = 32;  // where "general.alignment" says nothing
constexpr std::int64_t kMaxGgufAlignment = std::int64_t{1} << 20;
inline constexpr char kGgufAlignmentKey[] = "general.alignment";

// A reader may touch so much of a file before it believes it, and hold a few times as much.
constexpr std::int64_t kMaxGgufHeadBytes = std::int64_t{48} << 20;
constexpr std::int64_t kMaxGgufKeys = 65536;
constexpr std::int64_t kMaxGgufTensors = 65536;
constexpr std::int64_t kMaxGgufElements = std::int64_t{1} << 21;
constexpr int kMaxGgufDepth = 4;
constexpr std::uint32_t kMaxGgufDimensions = 4;
constexpr std::size_t kMaxGgufNameBytes = 63;  // of a tensor, when written: what llama.cpp reads

// Bytes of a scalar; 0 for texts and arrays.
int size_of(GgufType type);

// The next multiple.
inline std::int64_t aligned(std::int64_t offset, std::int64_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

}  // namespace caravan::checkpoint
