// Compiled with -ffp-contract=off: which set is furthest behind must not depend on the machine.
#include "caravan/data/row_cutter.h"

#include <fmt/format.h>

#include <numeric>
#include <utility>

#include "caravan/base/philox.h"

namespace caravan::data {

EpochOrder::EpochOrder(std::int64_t documents, bool shuffle, std::uint64_t seed, int set, std::int64_t epoch) {
  if (!shuffle) {
    return;
  }
  permutation_.resize(static_cast<std::size_t>(documents));
  std::iota(permutation_.begin(), permutation_.end(), 0);
  const RandomStream random(seed, fmt::format("data.shuffle.{}.{}", set, epoch));
  for (std::size_t i = permutation_.size(); i-- > 1;) {
    // uniform() is below 1 by 2^-53 at least, so that the product stays below i + 1 for less than 2^52 documents.
    const double place = random.uniform(i) * static_cast<double>(i + 1);
    std::swap(permutation_[i], permutation_[static_cast<std::size_t>(place)]);
  }
}

Piece EpochWalk::rest() const {
  const std::int64_t document = order->document(position);
  return {
      .document = document, .begin = begin, .length = static_cast<std::int64_t>((*documents)[document].size()) - begin};
}

void EpochWalk::take(std::int64_t count, std::int64_t left) {
  begin += count;
  if (count == left) {
    ++position;
    begin = 0;
  }
}

MixWalk::MixWalk(const std::vector<Documents>& sets, const RowOptions& options)
    : sets_(&sets), shuffle_(options.shuffle), seed_(options.seed), sources_(sets.size()) {
  const double total = std::accumulate(options.weights.begin(), options.weights.end(), 0.0);
  for (std::size_t i = 0; i < sets.size(); ++i) {
    sources_[i].share = options.weights[i] / total;
    sources_[i].order = std::make_shared<const EpochOrder>(sets[i].size(), shuffle_, seed_, static_cast<int>(i), 0);
  }
  choose();
}

void MixWalk::choose() {
  std::size_t chosen = 0;
  double furthest = 0.0;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const Source& source = sources_[i];
    const double behind = source.share * static_cast<double>(given_) - static_cast<double>(source.given);
    if (i == 0 || behind > furthest) {
      chosen = i;
      furthest = behind;
    }
  }
  Source& source = sources_[chosen];
  const Documents& documents = (*sets_)[chosen];
  if (source.position == documents.size()) {
    ++source.epoch;
    source.position = 0;
    if (shuffle_) {
      source.order =
          std::make_shared<const EpochOrder>(documents.size(), shuffle_, seed_, static_cast<int>(chosen), source.epoch);
    }
  }
  const std::int64_t document = source.order->document(source.position);
  piece_ = {.set = static_cast<int>(chosen),
            .document = document,
            .length = static_cast<std::int64_t>(documents[document].size())};
  ++source.position;
  source.given += piece_.length;
  given_ += piece_.length;
}

void MixWalk::take(std::int64_t count, std::int64_t left) {
  piece_.begin += count;
  piece_.length = left - count;
  if (piece_.length == 0) {
    choose();
  }
}

}  // namespace caravan::data
