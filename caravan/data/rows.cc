#include "caravan/data/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/data/row_cutter.h"

namespace caravan::data {
namespace {

// Every so many rows of the epoch at hand its place is kept, so that any row is a short walk away.
constexpr std::int64_t kStride = 64;

// Stands for a set in the name of the random numbers that shuffle the rows of an epoch.
constexpr int kRowsOfAnEpoch = -1;

void check_options(const std::vector<Documents>& sets, const RowOptions& options) {
  if (options.seq_len < 1 || options.epochs < 0) {
    throw ConfigError(
        fmt::format("rows of {} tokens for {} epochs are impossible; training.seq_len must be above 0 "
                    "and the epochs not below 0 (0: without end)",
                    options.seq_len, options.epochs));
  }
  if (sets.empty()) {
    throw InputError("there is no data set; name one as training.dataset_path");
  }
  if (options.weights.empty()) {
    return;
  }
  if (options.weights.size() != sets.size()) {
    throw ConfigError(
        fmt::format("{} weights were given for {} data sets; give one for each", options.weights.size(), sets.size()));
  }
  for (const double weight : options.weights) {
    if (!(weight > 0.0) || !std::isfinite(weight)) {
      throw ConfigError(fmt::format("a data set cannot have the weight {}; give a number above 0", weight));
    }
  }
  if (options.epochs > 0) {
    throw ConfigError(
        fmt::format("weights mix the data sets without end, so that {} epochs of them mean nothing; give "
                    "the number of steps instead, or leave the weights out",
                    options.epochs));
  }
}

void require_a_row(const Documents& documents, std::int64_t seq_len, const std::string& what) {
  if (documents.tokens() < seq_len) {
    throw InputError(
        fmt::format("{} {} tokens, less than one row of seq_len {}; give more text or a smaller "
                    "training.seq_len",
                    what, grouped(documents.tokens()), grouped(seq_len)));
  }
}

}  // namespace

struct Rows::State {
  std::vector<Documents> sets;  // one, unless there are weights
  RowOptions options;
  std::int64_t tokens = 0;

  // What follows is a cache: results do not depend on it.
  std::mutex mutex;
  // Without weights: the epoch at hand, places in it every kStride rows, and its rows.
  std::int64_t epoch = -1;
  std::optional<EpochOrder> order;
  std::vector<EpochWalk> places;
  std::optional<EpochOrder> row_order;
  std::int64_t epoch_rows = 0;
  // First rows of the epochs that are known, where epochs differ in their number of rows.
  std::vector<std::int64_t> first_row = {0};
  // With weights: the walk stands before row mix_row.
  std::optional<MixWalk> mix;
  std::int64_t mix_row = 0;
  // The walk of the last row() without weights, before row walk_row of the epoch at hand.
  std::optional<EpochWalk> walk;
  std::int64_t walk_row = 0;

  bool mixed() const { return !options.weights.empty(); }
  bool equal_epochs() const { return options.packing == Packing::kSplit || !options.shuffle; }

  void load_epoch(std::int64_t wanted) {
    if (epoch == wanted) {
      return;
    }
    const bool same_order = epoch >= 0 && !options.shuffle;
    epoch = wanted;
    walk.reset();
    if (same_order) {
      return;
    }
    order.emplace(sets[0].size(), options.shuffle, options.seed, 0, epoch);
    places.clear();
    epoch_rows = 0;
    EpochWalk place{.documents = &sets[0], .order = &*order};
    for (EpochWalk before = place; !cut_row(place, options.seq_len, options.packing).empty(); before = place) {
      if (epoch_rows % kStride == 0) {
        places.push_back(before);
      }
      ++epoch_rows;
    }
    row_order.emplace(epoch_rows, options.shuffle, options.seed, kRowsOfAnEpoch, epoch);
  }

  std::int64_t rows_of_first_epoch() {
    if (mixed()) {  // no epoch of all sets ends; as many rows as all tokens fill count as one
      return (tokens + options.seq_len - 1) / options.seq_len;
    }
    if (first_row.size() == 1) {
      load_epoch(0);
      first_row.push_back(epoch_rows);
    }
    return first_row[1];
  }

  // The epoch of a row and its number in it.
  std::pair<std::int64_t, std::int64_t> find(std::int64_t k) {
    if (equal_epochs()) {
      return {k / rows_of_first_epoch(), k % rows_of_first_epoch()};
    }
    while (first_row.back() <= k) {
      load_epoch(static_cast<std::int64_t>(first_row.size()) - 1);
      first_row.push_back(first_row.back() + epoch_rows);
    }
    const auto next = std::upper_bound(first_row.begin(), first_row.end(), k);
    return {next - first_row.begin() - 1, k - *(next - 1)};
  }

  std::int64_t epoch_of(std::int64_t k) {
    k = std::max<std::int64_t>(k, 0);
    return mixed() ? k / rows_of_first_epoch() : find(k).first;
  }

  std::vector<Piece> pieces_of_epochs(std::int64_t k) {
    if (options.epochs > 0 && k >= total_rows()) {
      return {};
    }
    const auto [wanted, place] = find(k);
    load_epoch(wanted);
    const std::int64_t number = row_order->document(place);
    const std::int64_t kept = number / kStride * kStride;
    if (!walk || walk_row > number || walk_row < kept) {
      walk = places[static_cast<std::size_t>(kept / kStride)];
      walk_row = kept;
    }
    for (; walk_row < number; ++walk_row) {
      cut_row(*walk, options.seq_len, options.packing);
    }
    ++walk_row;
    return cut_row(*walk, options.seq_len, options.packing);
  }

  std::vector<Piece> pieces_of_mix(std::int64_t k) {
    if (!mix || mix_row > k) {
      mix.emplace(sets, options);
      mix_row = 0;
    }
    for (; mix_row < k; ++mix_row) {
      cut_row(*mix, options.seq_len, options.packing);
    }
    ++mix_row;
    return cut_row(*mix, options.seq_len, options.packing);
  }

  std::int64_t total_rows() {
    if (options.epochs == 0) {
      return -1;
    }
    if (equal_epochs()) {
      return options.epochs * rows_of_first_epoch();
    }
    while (static_cast<std::int64_t>(first_row.size()) <= options.epochs) {
      find(first_row.back());
    }
    return first_row[static_cast<std::size_t>(options.epochs)];
  }
};

Rows::Rows(std::vector<Documents> sets, const RowOptions& options) : state_(std::make_unique<State>()) {
  check_options(sets, options);
  state_->options = options;
  const Documents all = Documents::concatenate(sets);  // throws for two tokenizers
  state_->tokens = all.tokens();
  if (state_->mixed()) {
    for (std::size_t i = 0; i < sets.size(); ++i) {
      require_a_row(sets[i], options.seq_len, fmt::format("data set {} of {} holds", i + 1, sets.size()));
    }
    state_->sets = std::move(sets);
  } else {
    require_a_row(all, options.seq_len,
                  sets.size() == 1 ? "the data set holds" : fmt::format("the {} data sets hold", sets.size()));
    state_->sets = {all};
  }
}

Rows::~Rows() = default;

Row Rows::row(std::int64_t k) const {
  if (k < 0) {
    throw InputError(fmt::format("row {} was asked for; rows are counted from 0", k));
  }
  const std::lock_guard lock(state_->mutex);
  const std::size_t seq_len = static_cast<std::size_t>(state_->options.seq_len);
  Row row;
  row.ids.reserve(seq_len);
  row.targets.reserve(seq_len);
  for (const Piece& piece : state_->mixed() ? state_->pieces_of_mix(k) : state_->pieces_of_epochs(k)) {
    const auto ids = state_->sets[static_cast<std::size_t>(piece.set)][piece.document].subspan(
        static_cast<std::size_t>(piece.begin), static_cast<std::size_t>(piece.length));
    row.ids.insert(row.ids.end(), ids.begin(), ids.end());
    row.targets.insert(row.targets.end(), ids.begin() + 1, ids.end());
    row.targets.push_back(kIgnoredTarget);
    row.lengths.push_back(piece.length);
  }
  row.ids.resize(seq_len, -1);
  row.targets.resize(seq_len, kIgnoredTarget);
  return row;
}

std::int64_t Rows::rows_per_epoch() const {
  const std::lock_guard lock(state_->mutex);
  return state_->rows_of_first_epoch();
}

std::int64_t Rows::total_rows() const {
  const std::lock_guard lock(state_->mutex);
  return state_->total_rows();
}

std::int64_t Rows::tokens() const {
  return state_->tokens;
}

std::int64_t Rows::epoch_of(std::int64_t k) const {
  const std::lock_guard lock(state_->mutex);
  return state_->epoch_of(k);
}

}  // namespace caravan::data
