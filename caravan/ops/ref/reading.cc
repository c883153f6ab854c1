#include <cstring>

#include "caravan/ops/args.h"

namespace caravan::ops::ref {
namespace {

void run_sum_words(Context&, const SumWordsArgs& args, std::byte*) {
  std::uint64_t total = 0;
  for (std::int64_t at = 0; at < args.x.bytes(); at += static_cast<std::int64_t>(sizeof(total))) {
    std::uint64_t word = 0;
    std::memcpy(&word, args.x.address() + at, sizeof(word));
    total += word;
  }
  std::memcpy(args.sum.address(), &total, sizeof(total));
}

constexpr Implementation<SumWordsArgs> kSumWordsList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_sum_words}};

}  // namespace

ImplementationList<SumWordsArgs> sum_words_list() {
  return kSumWordsList;
}

}  // namespace caravan::ops::ref
