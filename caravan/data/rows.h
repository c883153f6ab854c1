// Which ids stand in row k: packing, epochs, shuffling and mixing as one pure function of the row number.
//
// The stream of documents is cut into rows of `seq_len` ids.  A row is one or more sequences; attention, positions and
// targets stay inside a sequence: the target of an id is the next id of the same document in the same row, and the last
// id of a sequence has none.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "caravan/data/documents.h"
#include "caravan/layout/micro_batch.h"

namespace caravan::data {

enum class Packing {
  kSplit,  // every row is full: a document that does not fit goes on in the next row as a new sequence
  kWhole,  // a document that does not fit opens the next row, the rest is padding; only a longer one than a row is cut
};

struct RowOptions {
  std::int64_t seq_len = 2048;
  Packing packing = Packing::kSplit;
  // From (seed, epoch): documents in another order each epoch, then, without weights, the rows cut from them in another
  // order too; off: exactly file order.
  bool shuffle = false;
  std::uint64_t seed = 42;
  std::int64_t epochs = 0;           // rows end after so many; 0: never
  std::vector<double> weights = {};  // one a data set: its share of tokens; empty: one set after the other
};

// A row of seq_len ids and targets; sequences stand from 0 on, what is left at the end is padding (-1, kIgnoredTarget).
struct Row {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> targets;
  std::vector<std::int64_t> lengths;  // of its sequences
};

class Rows {
 public:
  // Throws InputError when a set holds less than one row (naming tokens and seq_len), ConfigError when weights do not
  // match the sets, are not above 0, or stand together with epochs, or seq_len or epochs are impossible.
  Rows(std::vector<Documents> sets, const RowOptions& options);
  ~Rows();
  Rows(const Rows&) = delete;

  // Row k.  Beyond the last epoch: all padding.  Rows asked for in ascending order are cheap.  Going back is cheap
  // inside an epoch; to another one it costs a walk over the lengths of its documents, with weights over those of all
  // rows before row k.  Several threads may ask at once; they wait for each other.
  Row row(std::int64_t k) const;
  // Rows of one epoch without weights (every epoch has as many with kSplit; with kWhole the first one's); with weights
  // the rows that all tokens fill.
  std::int64_t rows_per_epoch() const;
  // Rows of all epochs, or -1 when they never end.
  std::int64_t total_rows() const;
  std::int64_t tokens() const;  // of one epoch
  std::int64_t epoch_of(std::int64_t k) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace caravan::data
