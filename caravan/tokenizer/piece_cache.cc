#include "caravan/tokenizer/piece_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kFirstSlots = std::size_t{1} << 9;   // 16 kB
constexpr std::size_t kLargeSlots = std::size_t{1} << 16;  // 2 MB: one large page
constexpr std::size_t kMostSlots = std::size_t{1} << 18;   // 8 MB
constexpr std::size_t kLargeText = std::size_t{1} << 19;   // bytes that are expected to fill kLargeSlots
constexpr std::size_t kMostSpilled = std::size_t{1} << 19;
constexpr std::size_t kMostLongBytes = 64;
constexpr std::size_t kMostLongPieces = std::size_t{1} << 15;
constexpr std::size_t kMostSteps = 16;  // from where a long piece should be to where it is

}  // namespace

PieceCache::PieceCache(const BpeModel& model, Spaces spaces) : model_(model), spaces_(spaces) {
  make_slots(kFirstSlots);
}

void PieceCache::make_slots(std::size_t count) {
  memory_ = zeroed_pages(count * sizeof(Slot));
  slots_ = static_cast<Slot*>(memory_.get());
  slot_count_ = count;
  shift_ = 65 - static_cast<unsigned>(std::bit_width(count - 1));
  added_ = 0;
}

inline const PieceCache::Slot& PieceCache::find(const ShortKey& key, std::uint64_t hash, std::string_view piece) {
  const Slot* pair = pair_of(hash);
  // Which of the two it is cannot be foretold, so that is no branch.
  const std::uint64_t first = pair[0].key.differs(key);
  const std::uint64_t second = pair[1].key.differs(key);
  if (first != 0 && second != 0) [[unlikely]] {
    return add(key, hash, piece);
  }
  return pair[first != 0 ? 1 : 0];
}

inline std::span<const std::int32_t> PieceCache::ids_of(const Slot& slot) const {
  return {slot.count <= kInline ? slot.ids : spilled_.data() + slot.ids[0], slot.count};
}

std::span<const std::int32_t> PieceCache::find_short(std::string_view piece) {
  const ShortKey key = ShortKey::of(piece, 0, piece.size());
  return ids_of(find(key, key.hash(), piece));
}

void PieceCache::encode(std::string_view piece, std::vector<std::int32_t>& ids) {
  const std::span<const std::int32_t> found = piece.size() <= kShort ? find_short(piece) : find_long(piece);
  ids.insert(ids.end(), found.begin(), found.end());
}

void PieceCache::encode(std::string_view text, std::size_t at, const std::uint32_t* ends, std::size_t count,
                        std::vector<std::int32_t>& ids) {
  for (std::size_t from = 0; from < count; from += kBatch) {
    const std::size_t some = std::min(kBatch, count - from);
    // Where pieces have been new, more are.
    const bool may_be_new = added_ != added_before_ || added_ == 0;
    added_before_ = added_;
    look_ahead(text, at, {ends + from, some}, may_be_new);
    append(text, at, {ends + from, some}, ids);
    at = ends[from + some - 1];
  }
}

// Finds the keys of a batch; merges what is new, all together.
void PieceCache::look_ahead(std::string_view text, std::size_t at, std::span<const std::uint32_t> ends,
                            bool may_be_new) {
  std::array<std::uint32_t, kBatch> fresh;
  std::size_t count = 0;
  std::size_t checked = 0;
  const auto check = [&](std::size_t end) {
    for (; checked < end; ++checked) {
      fresh[count] = static_cast<std::uint32_t>(checked);
      const Slot* pair = pair_of(hashes_[checked]);
      // No branch: whether a piece is new cannot be foreseen.
      const std::size_t not_first = pair[0].key.differs(keys_[checked]) != 0 ? 1 : 0;
      const std::size_t not_second = pair[1].key.differs(keys_[checked]) != 0 ? 1 : 0;
      count += not_first & not_second;
    }
  };
  for (std::size_t i = 0; i < ends.size();) {
    const std::size_t begin = i;
    for (const std::size_t end = std::min(i + kAhead, ends.size()); i < end; ++i) {
      // The key of a long piece is that of its beginning, and not used.
      keys_[i] = ShortKey::of(text, at, std::min(ends[i] - at, kShort));
      hashes_[i] = keys_[i].hash();
      if (may_be_new) {
        __builtin_prefetch(pair_of(hashes_[i]));
      }
      at = ends[i];
    }
    if (may_be_new) {
      check(begin);
    }
  }
  if (may_be_new) {
    check(ends.size());
    add_together(text, ends, {fresh.data(), count});
  }
}

void PieceCache::append(std::string_view text, std::size_t at, std::span<const std::uint32_t> ends,
                        std::vector<std::int32_t>& ids) {
  std::size_t used = ids.size();
  // Of a piece kInline ids are copied whether it has them or not; for the last one there is room too.
  ids.resize(used + kInline * (ends.size() + 1));
  std::int32_t* out = ids.data() + used;
  const auto fetch = [this](std::size_t i) { __builtin_prefetch(pair_of(hashes_[i])); };
  for (std::size_t i = 0; i < std::min(kAhead, ends.size()); ++i) {
    fetch(i);
  }
  for (std::size_t i = 0; i < ends.size(); ++i) {
    fetch(std::min(i + kAhead, ends.size() - 1));
    const std::string_view piece(text.data() + at, ends[i] - at);
    at = ends[i];
    std::span<const std::int32_t> many;
    if (piece.size() <= kShort) [[likely]] {
      const Slot& slot = find(keys_[i], hashes_[i], piece);
      if (slot.count <= kInline) [[likely]] {
        std::memcpy(out, slot.ids, sizeof slot.ids);
        out += slot.count;
        continue;
      }
      many = ids_of(slot);
    } else {
      many = find_long(piece);
    }
    used = static_cast<std::size_t>(out - ids.data());
    ids.resize(std::max(ids.size(), used + many.size() + kInline * (ends.size() - i)));
    out = std::copy(many.begin(), many.end(), ids.data() + used);
  }
  ids.resize(static_cast<std::size_t>(out - ids.data()));
}

// The newest first: what stood second is forgotten.
void PieceCache::place(Slot* pair, const Slot& slot) {
  if (pair[0].key.high != 0) {
    pair[1] = pair[0];
  }
  pair[0] = slot;
}

// `fresh`: which pieces of the batch.  Those that are long, or of many symbols, are left to append().
void PieceCache::add_together(std::string_view text, std::span<const std::uint32_t> ends,
                              std::span<const std::uint32_t> fresh) {
  std::array<std::string_view, kTogether> pieces;
  std::array<std::uint32_t, kTogether> places;
  for (std::size_t i = 0; i < fresh.size();) {
    std::size_t some = 0;
    for (; i < fresh.size() && some < kTogether; ++i) {
      const std::uint32_t place = fresh[i];
      const std::size_t length = keys_[place].length();
      const std::size_t end = ends[place];
      if (place == 0 ? length < kShort : end - ends[place - 1] == length) {
        places[some] = place;
        pieces[some] = spell(text.substr(end - length, length), together_spelled_[some]);
        ++some;
      }
    }
    model_.encode({pieces.data(), some}, {together_.data(), some});
    for (std::size_t j = 0; j < some; ++j) {
      if (const std::span<const std::int32_t> ids = together_[j].symbols(); !ids.empty()) {
        keep(keys_[places[j]], hashes_[places[j]], ids);
      }
    }
  }
}

[[gnu::noinline]] const PieceCache::Slot& PieceCache::add(const ShortKey& key, std::uint64_t hash,
                                                          std::string_view piece) {
  merge(piece);
  return keep(key, hash, merged_);
}

const PieceCache::Slot& PieceCache::keep(const ShortKey& key, std::uint64_t hash, std::span<const std::int32_t> ids) {
  if (added_ * 2 >= slot_count_ && slot_count_ < kMostSlots) {
    grow();
  }
  if (spilled_.size() + ids.size() > kMostSpilled) {
    spilled_.clear();
    std::memset(memory_.get(), 0, slot_count_ * sizeof(Slot));
    added_ = 0;
  }
  Slot slot{key, {}, static_cast<std::uint32_t>(ids.size())};
  if (ids.size() <= kInline) {
    std::copy(ids.begin(), ids.end(), slot.ids);
  } else {
    slot.ids[0] = static_cast<std::int32_t>(spilled_.size());
    spilled_.insert(spilled_.end(), ids.begin(), ids.end());
  }
  Slot* pair = pair_of(hash);
  if (pair[0].key == key) {
    pair[0] = slot;
  } else {
    place(pair, slot);
    ++added_;
  }
  return *pair;
}

void PieceCache::expect(std::size_t bytes) {
  if (added_ == 0 && slot_count_ < kLargeSlots && bytes >= kLargeText) {
    make_slots(kLargeSlots);
  }
}

void PieceCache::grow() {
  const Pages old_memory = std::move(memory_);
  const Slot* old = slots_;
  const std::size_t count = slot_count_;
  make_slots(count < kLargeSlots / 4 ? count * 4 : count < kLargeSlots ? kLargeSlots : count * 2);
  for (std::size_t i = 0; i < count; ++i) {
    if (old[i].key.high != 0) {
      place(pair_of(old[i].key.hash()), old[i]);
      ++added_;
    }
  }
}

// A piece as the model spells it.
std::string_view PieceCache::spell(std::string_view piece, std::string& room) const {
  if (spaces_ == Spaces::kSpelled || piece.find(' ') == std::string_view::npos) {
    return piece;
  }
  room.clear();
  for (const char byte : piece) {
    if (byte == ' ') {
      room.append(kSpaceSymbol);
    } else {
      room += byte;
    }
  }
  return room;
}

void PieceCache::merge(std::string_view piece) {
  merged_.clear();
  model_.encode(spell(piece, spelled_), merged_);
}

std::span<const std::int32_t> PieceCache::find_long(std::string_view piece) {
  if (piece.size() > kMostLongBytes) {
    merge(piece);
    return merged_;
  }
  if (long_used_ == kMostLongPieces) {
    std::fill(long_slots_.begin(), long_slots_.end(), LongSlot{});
    long_pieces_.clear();
    long_ids_.clear();
    long_used_ = 0;
  }
  if (long_used_ * 2 >= long_slots_.size()) {
    grow_long();
  }
  const std::size_t mask = long_slots_.size() - 1;
  const std::uint64_t hash = XXH3_64bits(piece.data(), piece.size());
  std::size_t i = hash & mask;
  for (std::size_t steps = 0; long_slots_[i].length > 0; i = (i + 1) & mask) {
    const LongSlot& slot = long_slots_[i];
    if (slot.hash == hash && slot.length == piece.size() &&
        std::memcmp(piece.data(), long_pieces_.data() + slot.piece, slot.length) == 0) {
      return {long_ids_.data() + slot.ids, slot.count};
    }
    if (++steps == kMostSteps) {
      break;  // this one is forgotten
    }
  }
  merge(piece);
  long_slots_[i] = {hash, static_cast<std::uint32_t>(long_pieces_.size()), static_cast<std::uint32_t>(long_ids_.size()),
                    static_cast<std::uint16_t>(piece.size()), static_cast<std::uint16_t>(merged_.size())};
  long_pieces_.append(piece);
  long_ids_.insert(long_ids_.end(), merged_.begin(), merged_.end());
  ++long_used_;
  return merged_;
}

void PieceCache::grow_long() {
  const std::vector<LongSlot> old =
      std::exchange(long_slots_, std::vector<LongSlot>(long_slots_.empty() ? 256 : long_slots_.size() * 2));
  const std::size_t mask = long_slots_.size() - 1;
  for (const LongSlot& slot : old) {
    if (slot.length > 0) {
      std::size_t i = slot.hash & mask;
      for (std::size_t steps = 1; long_slots_[i].length > 0 && steps < kMostSteps; ++steps) {
        i = (i + 1) & mask;
      }
      long_slots_[i] = slot;
    }
  }
}

PieceCaches::Lent PieceCaches::lend(const BpeModel& model, PieceCache::Spaces spaces) {
  {
    const std::lock_guard lock(mutex_);
    if (!waiting_.empty()) {
      std::unique_ptr<PieceCache> cache = std::move(waiting_.back());
      waiting_.pop_back();
      return Lent(*this, std::move(cache));
    }
  }
  return Lent(*this, std::make_unique<PieceCache>(model, spaces));
}

void PieceCaches::take_back(std::unique_ptr<PieceCache> cache) {
  const std::lock_guard lock(mutex_);
  if (waiting_.size() < kMost) {
    waiting_.push_back(std::move(cache));
  }
}

}  // namespace caravan::tokenizer
