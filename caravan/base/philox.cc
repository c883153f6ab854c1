// Compiled with -ffp-contract=off: philox_arithmetic.h tells why.
#include "caravan/base/philox.h"

#include "caravan/base/philox_arithmetic.h"

namespace caravan {
namespace {

// FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  }
  return hash;
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  return philox::rounds(counter, key);
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view name) : seed_(seed), name_hash_(fnv1a(name)) {}

double RandomStream::uniform(std::uint64_t index) const {
  const auto words = philox::block(seed_, name_hash_, index);
  return static_cast<double>(philox::top53(words[0], words[1])) * 0x1p-53;
}

double RandomStream::normal(std::uint64_t index) const {
  return philox::normal(seed_, name_hash_, index);
}

}  // namespace caravan
