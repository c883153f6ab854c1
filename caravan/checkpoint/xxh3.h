// The hash of training checkpoints: XXH3-128, for damage, not against forgers.  Private to this room.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace caravan::checkpoint {

// 32 lower-case hexadecimal digits, the most significant first (the canonical form of xxHash).
std::string xxh3_hex(std::span<const std::byte> bytes);
std::string xxh3_hex(std::string_view text);

}  // namespace caravan::checkpoint
