// Memory for tables that are read at random: in large pages where the system has them, since a look-up in each of many
// small ones misses the processor's memory of addresses too.
#pragma once

#include <cstddef>
#include <memory>

namespace caravan::tokenizer {

struct ReleasePages {
  std::size_t bytes = 0;
  void operator()(void* memory) const;
};
using Pages = std::unique_ptr<void, ReleasePages>;

// Zeros, aligned to 4096 bytes; from 2 MB on to that.  Throws std::bad_alloc.
Pages zeroed_pages(std::size_t bytes);

// Asks for large pages below the whole 2 MB between the two ends, memory of any kind that has not been written yet.
void prefer_large_pages(void* memory, std::size_t bytes);

}  // namespace caravan::tokenizer
