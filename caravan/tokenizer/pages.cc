#include "caravan/tokenizer/pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kLarge = std::size_t{2} << 20;

}  // namespace

void ReleasePages::operator()(void* memory) const {
  munmap(memory, bytes);
}

Pages zeroed_pages(std::size_t bytes) {
  const std::size_t slack = bytes >= kLarge ? kLarge : 0;
  void* memory = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::bad_alloc();
  }
  auto* begin = static_cast<char*>(memory);
  if (slack > 0) {
    // What lies before the border and behind the end is given back.
    const std::size_t before = (kLarge - reinterpret_cast<std::uintptr_t>(begin) % kLarge) % kLarge;
    if (before > 0) {
      munmap(begin, before);
    }
    if (slack > before) {
      munmap(begin + before + ((bytes + 4095) & ~std::size_t{4095}), slack - before);
    }
    begin += before;
    prefer_large_pages(begin, bytes);
  }
  return Pages(begin, ReleasePages{bytes});
}

void prefer_large_pages(void* memory, std::size_t bytes) {
  const auto begin = (reinterpret_cast<std::uintptr_t>(memory) + kLarge - 1) / kLarge * kLarge;
  const auto end = (reinterpret_cast<std::uintptr_t>(memory) + bytes) / kLarge * kLarge;
  if (begin < end) {
    // A wish: where it is refused, pages are small.
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
}

}  // namespace caravan::tokenizer
