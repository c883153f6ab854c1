#include "caravan/tokenizer/bpe.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "caravan/tokenizer/merge_heap.h"
#include "caravan/tokenizer/utf8.h"

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

void CharacterTable::put(char32_t character, std::int32_t id) {
  const std::size_t page = character >> 8;
  if (page >= pages_.size()) {
    pages_.resize(page + 1);
  }
  if (pages_[page] == 0) {
    pages_[page] = static_cast<std::uint32_t>(ids_.size() / kPage);
    ids_.resize(ids_.size() + kPage, -1);
  }
  ids_[pages_[page] * kPage + (character & 0xFF)] = id;
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
  if (symbols == Symbols::kBytes && piece.size() <= kShortPiece) {
    std::array<std::int32_t, kShortPiece> few;
    std::size_t count = 0;
    for (const char byte : piece) {
      few[count] = byte_ids[static_cast<unsigned char>(byte)];
      count += few[count] >= 0 ? 1 : 0;
    }
    merge_short(merges, few.data(), count, ids);
    return;
  }
  std::vector<std::int32_t> started;
  start(piece, started);
  if (started.size() <= kShortPiece) {
    merge_short(merges, started.data(), started.size(), ids);
  } else {
    merge_long(merges, started, ids, [](std::int32_t, std::int32_t, std::int32_t) {});
  }
}

void BpeModel::start(std::string_view piece, std::vector<std::int32_t>& started) const {
  started.reserve(piece.size());
  if (symbols == Symbols::kBytes) {
    for (const char byte : piece) {
      if (const std::int32_t id = byte_ids[static_cast<unsigned char>(byte)]; id >= 0) {
        started.push_back(id);
      }
    }
    return;
  }
  // An unknown waits for the next character that has a token, as in `tokenizers`: bytes may come before it.
  bool waiting = false;
  const auto flush = [&] {
    if (waiting) {
      started.push_back(unknown);
    }
    waiting = false;
  };
  for (std::size_t at = 0; at < piece.size();) {
    const CodePoint character = code_point_at(piece, at);
    const std::string_view bytes = piece.substr(at, character.length);
    at += character.length;
    if (const std::int32_t id = characters.find(character.value); id >= 0) {
      flush();
      started.push_back(id);
      continue;
    }
    const auto has_token = [&](char byte) { return byte_ids[static_cast<unsigned char>(byte)] >= 0; };
    if (byte_fallback && std::all_of(bytes.begin(), bytes.end(), has_token)) {
      for (const char byte : bytes) {
        started.push_back(byte_ids[static_cast<unsigned char>(byte)]);
      }
      continue;
    }
    if (unknown >= 0) {
      if (!fuse_unknown) {
        flush();
      }
      waiting = true;
    }
  }
  flush();
}

bool holds_inner_space(std::string_view token) {
  while (token.starts_with(kSpaceSymbol)) {
    token.remove_prefix(kSpaceSymbol.size());
  }
  return token.find(kSpaceSymbol) != std::string_view::npos;
}

std::size_t word_end(std::string_view text, std::size_t at) {
  const auto space_at = [&](std::size_t place) { return text.compare(place, kSpaceSymbol.size(), kSpaceSymbol) == 0; };
  while (at < text.size() && space_at(at)) {
    at += kSpaceSymbol.size();
  }
  return std::min(text.find(kSpaceSymbol, at), text.size());
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
