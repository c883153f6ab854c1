#include "caravan/tokenizer/fingerprint.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <new>

namespace caravan::tokenizer {

Fingerprint::Fingerprint()
    : state_(XXH3_createState(), [](void* state) { XXH3_freeState(static_cast<XXH3_state_t*>(state)); }) {
  if (state_ == nullptr) {
    throw std::bad_alloc();
  }
  XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_.get()));
}

void Fingerprint::add(std::string_view text) {
  XXH3_128bits_update(static_cast<XXH3_state_t*>(state_.get()), text.data(), text.size());
}

std::string Fingerprint::digest() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_.get()));
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace caravan::tokenizer
