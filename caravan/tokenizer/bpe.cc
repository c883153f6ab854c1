#include "caravan/tokenizer/bpe.h"

#include <xxhash.h>

#include <algorithm>
#include <queue>
#include <utility>

namespace caravan::tokenizer {

namespace {

// Up to here the best pair is searched from the front each time; beyond, a heap holds the pairs.
constexpr std::size_t kShortPiece = 32;
constexpr std::size_t kMaxCachedBytes = 64;
constexpr std::size_t kMaxCachedPieces = std::size_t{1} << 16;

using Merge = MergeTable::Merge;

void merge_short(const MergeTable& table, std::int32_t* symbols, std::size_t count, std::vector<std::int32_t>& ids) {
  std::array<Merge, kShortPiece> merges;  // merges[i]: of symbols i and i + 1
  for (std::size_t i = 0; i + 1 < count; ++i) {
    merges[i] = table.find(symbols[i], symbols[i + 1]);
  }
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      best = merges[i].rank < merges[best].rank ? i : best;
    }
    if (merges[best].rank == MergeTable::kNoRank) {
      break;
    }
    symbols[best] = merges[best].id;
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    std::copy(merges.begin() + static_cast<std::ptrdiff_t>(best) + 1,
              merges.begin() + static_cast<std::ptrdiff_t>(count) - 1,
              merges.begin() + static_cast<std::ptrdiff_t>(best));
    --count;
    if (best + 1 < count) {
      merges[best] = table.find(symbols[best], symbols[best + 1]);
    }
    if (best > 0) {
      merges[best - 1] = table.find(symbols[best - 1], symbols[best]);
    }
  }
  ids.insert(ids.end(), symbols, symbols + count);
}

// A linked list of symbols and a heap of pairs; a pair that changed since it was put there is passed over.
void merge_long(const MergeTable& table, const std::vector<std::int32_t>& start, std::vector<std::int32_t>& ids) {
  struct Symbol {
    std::int32_t id;
    std::uint32_t previous;
    std::uint32_t next;
  };
  struct Candidate {
    std::uint32_t rank;
    std::uint32_t left;
    std::int32_t id;
    bool operator<(const Candidate& other) const {  // the top of the heap: smallest rank, then leftmost
      return std::pair(rank, left) > std::pair(other.rank, other.left);
    }
  };
  constexpr std::uint32_t kNone = 0xFFFFFFFF;
  std::vector<Symbol> symbols(start.size());
  std::vector<Candidate> initial;
  for (std::size_t i = 0; i < start.size(); ++i) {
    const auto at = static_cast<std::uint32_t>(i);
    symbols[i] = {start[i], i == 0 ? kNone : at - 1, i + 1 == start.size() ? kNone : at + 1};
    const Merge merge = i + 1 < start.size() ? table.find(start[i], start[i + 1]) : Merge{};
    if (merge.rank != MergeTable::kNoRank) {
      initial.push_back({merge.rank, at, merge.id});
    }
  }
  std::priority_queue<Candidate> heap(std::less<Candidate>{}, std::move(initial));
  const auto offer = [&](std::uint32_t left) {
    const std::uint32_t right = symbols[left].next;
    const Merge merge = right == kNone ? Merge{} : table.find(symbols[left].id, symbols[right].id);
    if (merge.rank != MergeTable::kNoRank) {
      heap.push({merge.rank, left, merge.id});
    }
  };
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    Symbol& left = symbols[top.left];
    if (left.id < 0 || left.next == kNone) {
      continue;
    }
    Symbol& right = symbols[left.next];
    if (table.find(left.id, right.id).rank != top.rank) {
      continue;
    }
    left.id = top.id;
    left.next = right.next;
    right.id = -1;
    if (left.next != kNone) {
      symbols[left.next].previous = top.left;
    }
    offer(top.left);
    if (left.previous != kNone) {
      offer(left.previous);
    }
  }
  for (std::uint32_t at = 0; at != kNone; at = symbols[at].next) {
    ids.push_back(symbols[at].id);
  }
}

}  // namespace

void MergeTable::reserve(std::size_t count) {
  std::size_t size = 2;
  while (size < count * 2) {
    size *= 2;
  }
  if (size <= slots_.size()) {
    return;
  }
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(size));
  mask_ = size - 1;
  count_ = 0;
  for (const Slot& slot : old) {
    if (slot.key != kEmpty) {
      put(static_cast<std::int32_t>(slot.key >> 32), static_cast<std::int32_t>(slot.key), slot.merge);
    }
  }
}

void MergeTable::put(std::int32_t left, std::int32_t right, Merge merge) {
  if ((count_ + 1) * 2 > slots_.size()) {
    reserve((count_ + 1) * 2);
  }
  const std::uint64_t key = key_of(left, right);
  std::size_t i = hash(key) & mask_;
  while (slots_[i].key != kEmpty && slots_[i].key != key) {
    i = (i + 1) & mask_;
  }
  count_ += slots_[i].key == kEmpty ? 1 : 0;
  slots_[i] = {key, merge};
}

void TokenTable::put(std::int32_t id, std::string_view bytes, bool searchable) {
  const auto place = static_cast<std::size_t>(id);
  if (place >= entries_.size()) {
    entries_.resize(place + 1);
  }
  entries_[place] = {static_cast<std::uint32_t>(arena_.size()), static_cast<std::uint32_t>(bytes.size()) & 0x3FFFFFFF,
                     1, searchable ? 1U : 0U};
  ++used_;
  arena_.append(bytes);
}

void TokenTable::index() {
  std::size_t size = 2;
  while (size < used_ * 2) {
    size *= 2;
  }
  slots_.assign(size, -1);
  for (std::size_t id = 0; id < entries_.size(); ++id) {
    if (entries_[id].searchable == 0) {
      continue;
    }
    const std::string_view token = bytes(static_cast<std::int32_t>(id));
    std::size_t i = XXH3_64bits(token.data(), token.size()) & (size - 1);
    while (slots_[i] >= 0) {
      i = (i + 1) & (size - 1);
    }
    slots_[i] = static_cast<std::int32_t>(id);
  }
}

std::optional<std::int32_t> TokenTable::find(std::string_view wanted) const {
  if (slots_.empty()) {
    return std::nullopt;
  }
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = XXH3_64bits(wanted.data(), wanted.size()) & mask; slots_[i] >= 0; i = (i + 1) & mask) {
    if (bytes(slots_[i]) == wanted) {
      return slots_[i];
    }
  }
  return std::nullopt;
}

bool TokenTable::has(std::int32_t id) const {
  return id >= 0 && id < size() && entries_[static_cast<std::size_t>(id)].used != 0;
}

std::string_view TokenTable::bytes(std::int32_t id) const {
  const Entry& entry = entries_[static_cast<std::size_t>(id)];
  return std::string_view(arena_).substr(entry.offset, entry.length);
}

void BpeModel::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (ignore_merges) {
    if (const auto id = tokens.find(piece)) {
      ids.push_back(*id);
      return;
    }
  }
  const auto id_of = [&](char byte) { return byte_ids[static_cast<unsigned char>(byte)]; };
  if (piece.size() <= kShortPiece) {
    std::array<std::int32_t, kShortPiece> symbols;
    std::size_t count = 0;
    for (const char byte : piece) {
      symbols[count] = id_of(byte);
      count += symbols[count] >= 0 ? 1 : 0;
    }
    merge_short(merges, symbols.data(), count, ids);
    return;
  }
  std::vector<std::int32_t> symbols;
  symbols.reserve(piece.size());
  for (const char byte : piece) {
    if (const std::int32_t id = id_of(byte); id >= 0) {
      symbols.push_back(id);
    }
  }
  if (!symbols.empty()) {
    merge_long(merges, symbols, ids);
  }
}

void PieceCache::encode(std::string_view piece, std::vector<std::int32_t>& ids) {
  if (piece.size() == 1 || piece.size() > kMaxCachedBytes) {
    model_.encode(piece, ids);
    return;
  }
  if (used_ * 2 >= slots_.size() && used_ < kMaxCachedPieces) {
    grow();
  }
  const std::size_t mask = slots_.size() - 1;
  const std::uint64_t hash = XXH3_64bits(piece.data(), piece.size());
  std::size_t i = hash & mask;
  for (; slots_[i].length > 0; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.hash == hash && slot.length == piece.size() &&
        piece.compare(0, piece.size(), pieces_.data() + slot.piece, slot.length) == 0) {
      ids.insert(ids.end(), ids_.begin() + slot.ids, ids_.begin() + slot.ids + slot.count);
      return;
    }
  }
  const std::size_t before = ids.size();
  model_.encode(piece, ids);
  if (used_ < kMaxCachedPieces) {
    slots_[i] = {hash, static_cast<std::uint32_t>(pieces_.size()), static_cast<std::uint32_t>(ids_.size()),
                 static_cast<std::uint16_t>(piece.size()), static_cast<std::uint16_t>(ids.size() - before)};
    pieces_.append(piece);
    ids_.insert(ids_.end(), ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
    ++used_;
  }
}

void PieceCache::grow() {
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(slots_.empty() ? 256 : slots_.size() * 2));
  const std::size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (slot.length > 0) {
      std::size_t i = slot.hash & mask;
      while (slots_[i].length > 0) {
        i = (i + 1) & mask;
      }
      slots_[i] = slot;
    }
  }
}

}  // namespace caravan::tokenizer
