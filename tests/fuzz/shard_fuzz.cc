// Any bytes as a token shard: a FormatError, or documents that lie within it.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "caravan/base/error.h"
#include "caravan/data/shard.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A heap copy of exact size: a step beyond it is seen.
  const std::unique_ptr<std::byte[]> copy(new std::byte[size]);
  if (size > 0) {
    std::memcpy(copy.get(), data, size);
  }
  try {
    const caravan::data::Shard shard = caravan::data::parse_shard({copy.get(), size}, nullptr, "x.safetensors");
    std::int64_t tokens = 0;
    std::int32_t largest = -1;
    for (std::int64_t i = 0; i < shard.documents(); ++i) {
      const std::int64_t begin = shard.offsets[static_cast<std::size_t>(i)];
      const std::int64_t end = shard.offsets[static_cast<std::size_t>(i) + 1];
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int32_t id = shard.tokens[static_cast<std::size_t>(t)];
        largest = id > largest ? id : largest;
        if (id < 0) {
          std::abort();
        }
      }
      tokens += end - begin;
    }
    if (tokens != static_cast<std::int64_t>(shard.tokens.size()) || largest != shard.largest_id) {
      std::abort();
    }
  } catch (const caravan::FormatError&) {
  }
  return 0;
}
