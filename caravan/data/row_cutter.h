// The order of documents, and its cutting into rows: lengths alone, no ids.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "caravan/data/documents.h"
#include "caravan/data/rows.h"

namespace caravan::data {

// Ids [begin, begin + length) of a document: one sequence of a row.
struct Piece {
  int set = 0;
  std::int64_t document = 0;
  std::int64_t begin = 0;
  std::int64_t length = 0;
};

// The documents of one set in the order of one epoch.
class EpochOrder {
 public:
  // Without `shuffle` the file order.  Else a permutation from (seed, set, epoch): Fisher-Yates with Philox.
  EpochOrder(std::int64_t documents, bool shuffle, std::uint64_t seed, int set, std::int64_t epoch);

  std::int64_t document(std::int64_t position) const {
    return permutation_.empty() ? position : permutation_[static_cast<std::size_t>(position)];
  }

 private:
  std::vector<std::int64_t> permutation_;
};

// A place in one epoch of one set, from which rows can be cut.
struct EpochWalk {
  const Documents* documents;
  const EpochOrder* order;
  std::int64_t position = 0;
  std::int64_t begin = 0;  // ids of the document at `position` that were taken already

  bool done() const { return position == documents->size(); }
  // What is left of the document at hand.
  Piece rest() const;
  void take(std::int64_t count, std::int64_t left);
};

// A place in the endless order of several sets: the next document comes from the set whose tokens given so far are
// furthest behind its share.  Each set goes through its own epochs.
class MixWalk {
 public:
  MixWalk(const std::vector<Documents>& sets, const RowOptions& options);

  bool done() const { return false; }
  Piece rest() const { return piece_; }
  void take(std::int64_t count, std::int64_t left);

 private:
  struct Source {
    double share = 0.0;  // all shares together are 1
    std::int64_t given = 0;
    std::int64_t epoch = 0;
    std::int64_t position = 0;
    std::shared_ptr<const EpochOrder> order;
  };
  void choose();

  const std::vector<Documents>* sets_;
  bool shuffle_;
  std::uint64_t seed_;
  std::vector<Source> sources_;
  std::int64_t given_ = 0;
  Piece piece_;
};

// The sequences of the next row; moves `walk` behind them.  None when the walk is done.
template <typename Walk>
std::vector<Piece> cut_row(Walk& walk, std::int64_t seq_len, Packing packing) {
  std::vector<Piece> row;
  std::int64_t room = seq_len;
  while (room > 0 && !walk.done()) {
    Piece piece = walk.rest();
    const std::int64_t left = piece.length;
    if (packing == Packing::kWhole && left > room && !row.empty()) {
      break;
    }
    piece.length = left < room ? left : room;
    walk.take(piece.length, left);
    room -= piece.length;
    if (piece.length > 0) {  // documents without ids are passed over
      row.push_back(piece);
    }
  }
  return row;
}

}  // namespace caravan::data
