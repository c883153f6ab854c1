#include "caravan/checkpoint/xxh3.h"

#include <fmt/format.h>

// The header alone is enough: programs that embed Caravan need no libxxhash to link with.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace caravan::checkpoint {

std::string xxh3_hex(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string xxh3_hex(std::string_view text) {
  return xxh3_hex(std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace caravan::checkpoint
