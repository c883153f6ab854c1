#include "caravan/data/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/philox.h"
#include "caravan/base/text.h"

namespace caravan::data {

namespace {

// The documents of one set that hold ids, in the order of one epoch.
std::vector<std::int64_t> epoch_order(const Documents& documents, bool shuffle, std::uint64_t seed, std::int64_t epoch,
                                      std::size_t set) {
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i < documents.size(); ++i) {
    if (!documents[i].empty()) {
      order.push_back(i);
    }
  }
  if (shuffle) {
    const RandomStream stream(seed, fmt::format("order of set {} in epoch {}", set, epoch));
    for (std::size_t i = order.size(); i > 1; --i) {
      const auto other = static_cast<std::size_t>(stream.uniform(i) * static_cast<double>(i));
      std::swap(order[i - 1], order[other]);
    }
  }
  return order;
}

// A row that is being filled.
class RowBuilder {
 public:
  explicit RowBuilder(std::int64_t seq_len) : seq_len_(seq_len) { clear(); }

  std::int64_t room() const { return seq_len_ - filled_; }

  // A piece of a document becomes a sequence; its last id predicts nothing.
  void add(std::span<const std::int32_t> piece) {
    const auto at = static_cast<std::size_t>(filled_);
    std::copy(piece.begin(), piece.end(), row_.ids.begin() + static_cast<std::ptrdiff_t>(at));
    std::copy(piece.begin() + 1, piece.end(), row_.targets.begin() + static_cast<std::ptrdiff_t>(at));
    row_.lengths.push_back(static_cast<std::int64_t>(piece.size()));
    filled_ += static_cast<std::int64_t>(piece.size());
  }

  Row take() {
    Row result = std::move(row_);
    clear();
    return result;
  }

 private:
  void clear() {
    row_ = {std::vector<std::int32_t>(static_cast<std::size_t>(seq_len_), -1),
            std::vector<std::int32_t>(static_cast<std::size_t>(seq_len_), kIgnoredTarget),
            {}};
    filled_ = 0;
  }

  std::int64_t seq_len_;
  std::int64_t filled_ = 0;
  Row row_;
};

// How many ids of a document of `length`, of which `left` are left, go into a row with `room`: 0 opens the next row.
std::int64_t piece_length(Packing packing, std::int64_t left, std::int64_t room, std::int64_t seq_len) {
  const bool waits = packing == Packing::kWhole && left > room && room < seq_len;
  return waits ? 0 : std::min(left, room);
}

// One epoch without weights: where every row begins.
struct EpochIndex {
  struct Start {
    std::size_t place = 0;    // in order
    std::int64_t offset = 0;  // into that document
  };
  std::int64_t epoch = -1;
  std::vector<std::int64_t> order;
  std::vector<Start> rows;
};

EpochIndex index_epoch(const Documents& documents, const RowOptions& options, std::int64_t epoch) {
  EpochIndex index;
  index.epoch = epoch;
  index.order = epoch_order(documents, options.shuffle, options.seed, epoch, 0);
  std::int64_t room = 0;
  for (std::size_t place = 0; place < index.order.size(); ++place) {
    const auto length = static_cast<std::int64_t>(documents[index.order[place]].size());
    for (std::int64_t offset = 0; offset < length;) {
      const std::int64_t piece = piece_length(options.packing, length - offset, room, options.seq_len);
      if (piece == 0) {
        index.rows.push_back({place, offset});
        room = options.seq_len;
        continue;
      }
      offset += piece;
      room -= piece;
    }
  }
  return index;
}

// The endless order of documents of a mixture: the next one is from the set that is furthest behind its share.
class Mixture {
 public:
  Mixture(const std::vector<Documents>& sets, const RowOptions& options) : sets_(sets), options_(options) {
    states_.resize(sets.size());
    for (std::size_t set = 0; set < sets.size(); ++set) {
      states_[set].order = epoch_order(sets[set], options.shuffle, options.seed, 0, set);
    }
  }

  std::span<const std::int32_t> next() {
    std::size_t chosen = 0;
    for (std::size_t set = 1; set < sets_.size(); ++set) {
      if (given_share(set) < given_share(chosen)) {
        chosen = set;
      }
    }
    State& state = states_[chosen];
    if (state.place == state.order.size()) {
      state.order = epoch_order(sets_[chosen], options_.shuffle, options_.seed, ++state.epoch, chosen);
      state.place = 0;
    }
    const std::span<const std::int32_t> document = sets_[chosen][state.order[state.place++]];
    state.given += static_cast<double>(document.size());
    return document;
  }

 private:
  struct State {
    std::int64_t epoch = 0;
    std::vector<std::int64_t> order;
    std::size_t place = 0;
    double given = 0.0;  // ids so far
  };

  double given_share(std::size_t set) const { return states_[set].given / options_.weights[set]; }

  const std::vector<Documents>& sets_;
  const RowOptions& options_;
  std::vector<State> states_;
};

// A walk over a mixture, row by row.
struct MixtureWalk {
  Mixture mixture;
  std::int64_t next_row = 0;
  std::span<const std::int32_t> document = {};  // what is left of the current one

  Row row(const RowOptions& options) {
    RowBuilder builder(options.seq_len);
    while (builder.room() > 0) {
      if (document.empty()) {
        document = mixture.next();
      }
      const std::int64_t piece =
          piece_length(options.packing, static_cast<std::int64_t>(document.size()), builder.room(), options.seq_len);
      if (piece == 0) {
        break;
      }
      builder.add(document.first(static_cast<std::size_t>(piece)));
      document = document.subspan(static_cast<std::size_t>(piece));
    }
    ++next_row;
    return builder.take();
  }
};

void require_a_row(std::int64_t tokens, std::int64_t seq_len) {
  if (tokens < seq_len) {
    throw InputError(fmt::format(
        "the data set holds {} ids, less than one row of {}; give more text or lower training.seq_len to at most {}",
        grouped(tokens), grouped(seq_len), grouped(std::max<std::int64_t>(1, tokens))));
  }
}

}  // namespace

struct Rows::State {
  std::vector<Documents> sets;
  Documents all = Documents::of({});
  RowOptions options;
  std::vector<std::int64_t> ends;  // rows up to the end of each epoch that was looked at
  EpochIndex index;                // of the epoch that was asked for last
  std::optional<MixtureWalk> walk;

  // Makes `index` that of `epoch`, and knows where it ends.
  void look_at(std::int64_t epoch) {
    if (index.epoch == epoch) {
      return;
    }
    index = index_epoch(all, options, epoch);
    if (static_cast<std::int64_t>(ends.size()) == epoch) {
      ends.push_back((ends.empty() ? 0 : ends.back()) + static_cast<std::int64_t>(index.rows.size()));
    }
  }

  // Every epoch has as many rows where nothing waits for the next row.
  bool even() const { return options.packing == Packing::kSplit || !options.shuffle; }

  std::int64_t epoch_of(std::int64_t k) {
    if (even()) {
      return k / ends.front();
    }
    while (ends.back() <= k && (options.epochs == 0 || static_cast<std::int64_t>(ends.size()) < options.epochs)) {
      look_at(static_cast<std::int64_t>(ends.size()));
    }
    return std::upper_bound(ends.begin(), ends.end(), k) - ends.begin();
  }

  std::int64_t epoch_begin(std::int64_t epoch) const {
    return even() ? epoch * ends.front() : epoch == 0 ? 0 : ends[static_cast<std::size_t>(epoch - 1)];
  }

  Row indexed_row(std::int64_t k) {
    RowBuilder builder(options.seq_len);
    const std::int64_t epoch = epoch_of(k);
    if (options.epochs > 0 && epoch >= options.epochs) {
      return builder.take();
    }
    look_at(epoch);
    EpochIndex::Start at = index.rows[static_cast<std::size_t>(k - epoch_begin(epoch))];
    while (at.place < index.order.size() && builder.room() > 0) {
      const std::span<const std::int32_t> left =
          all[index.order[at.place]].subspan(static_cast<std::size_t>(at.offset));
      const std::int64_t piece =
          piece_length(options.packing, static_cast<std::int64_t>(left.size()), builder.room(), options.seq_len);
      if (piece == 0) {
        break;
      }
      builder.add(left.first(static_cast<std::size_t>(piece)));
      at = {at.place + 1, 0};
    }
    return builder.take();
  }

  Row mixed_row(std::int64_t k) {
    if (!walk || walk->next_row > k) {
      walk.emplace(MixtureWalk{Mixture(sets, options)});
    }
    Row row = walk->row(options);
    while (walk->next_row <= k) {
      row = walk->row(options);
    }
    return row;
  }
};

Rows::Rows(std::vector<Documents> sets, const RowOptions& options) : state_(std::make_unique<State>()) {
  state_->sets = std::move(sets);
  state_->options = options;
  if (options.seq_len < 1) {
    throw ConfigError(fmt::format("training.seq_len {} is below 1", options.seq_len));
  }
  if (options.weights.empty()) {
    state_->all = Documents::concatenate(state_->sets);
    require_a_row(state_->all.tokens(), options.seq_len);
    state_->look_at(0);
    return;
  }
  if (options.weights.size() != state_->sets.size() || options.epochs > 0 ||
      !std::ranges::all_of(options.weights, [](double weight) { return weight > 0.0 && weight < 1e300; })) {
    throw ConfigError(fmt::format(
        "{} data sets with {} weights{}: give each a weight above 0, and steps instead of epochs", state_->sets.size(),
        options.weights.size(), options.epochs > 0 ? fmt::format(" and {} epochs", options.epochs) : ""));
  }
  for (const Documents& set : state_->sets) {
    require_a_row(set.tokens(), options.seq_len);
  }
}

Rows::~Rows() = default;

Row Rows::row(std::int64_t k) const {
  return state_->options.weights.empty() ? state_->indexed_row(k) : state_->mixed_row(k);
}

std::int64_t Rows::rows_per_epoch() const {
  return state_->options.weights.empty() ? state_->ends.front()
                                         : (tokens() + state_->options.seq_len - 1) / state_->options.seq_len;
}

std::int64_t Rows::total_rows() const {
  const std::int64_t epochs = state_->options.epochs;
  if (epochs == 0) {
    return -1;
  }
  if (state_->even()) {
    return epochs * state_->ends.front();
  }
  state_->epoch_of(std::numeric_limits<std::int64_t>::max());
  return state_->ends.back();
}

std::int64_t Rows::tokens() const {
  return std::accumulate(state_->sets.begin(), state_->sets.end(), std::int64_t{0},
                         [](std::int64_t sum, const Documents& set) { return sum + set.tokens(); });
}

std::int64_t Rows::epoch_of(std::int64_t k) const {
  return state_->options.weights.empty() ? state_->epoch_of(k) : k / rows_per_epoch();
}

}  // namespace caravan::data
