#include "caravan/tokenizer/bpe.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "caravan/tokenizer/merge_heap.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

// Up to here the best pair is searched from the front each time; beyond, a heap holds the pairs.
constexpr std::size_t kShortPiece = 32;

using Merge = MergeTable::Merge;

struct Link {
  std::int32_t id = -1;
  Merge with_next;
};

void link(const MergeTable& table, Link* links, std::size_t at, std::size_t count) {
  links[at].with_next = at + 1 < count ? table.find(links[at].id, links[at + 1].id) : Merge{};
}

// `links` hold ids.
void merge_short(const MergeTable& table, Link* links, std::size_t count, std::vector<std::int32_t>& ids) {
  for (std::size_t i = 0; i < count; ++i) {
    link(table, links, i, count);
  }
  while (count > 1) {
    // The smallest rank, of equal ones the leftmost, without a branch.
    std::uint64_t best = ~std::uint64_t{0};
    for (std::size_t i = 0; i + 1 < count; ++i) {
      best = std::min(best, std::uint64_t{links[i].with_next.rank} << 32 | i);
    }
    if (best >> 32 == MergeTable::kNoRank) {
      break;
    }
    const std::size_t at = best & 0xFFFFFFFF;
    links[at].id = links[at].with_next.id;
    --count;
    for (std::size_t i = at + 1; i < count; ++i) {
      links[i] = links[i + 1];
    }
    link(table, links, at, count);
    if (at > 0) {
      link(table, links, at - 1, count);
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    ids.push_back(links[i].id);
  }
}

}  // namespace

void MergeTable::make_slots(std::size_t count) {
  memory_ = zeroed_pages(count * sizeof(Slot));
  slots_ = static_cast<Slot*>(memory_.get());
  mask_ = count - 1;
}

MergeTable::MergeTable() {
  make_slots(2);
}

void MergeTable::reserve(std::size_t count) {
  std::size_t size = 2;
  while (size < count * 2) {
    size *= 2;
  }
  const std::size_t old_size = mask_ + 1;
  if (size <= old_size) {
    return;
  }
  const Pages memory = std::move(memory_);
  const Slot* old = slots_;
  make_slots(size);
  count_ = 0;
  for (std::size_t i = 0; i < old_size; ++i) {
    if (old[i].key != 0) {
      const std::uint64_t pair = old[i].key - 1;
      put(static_cast<std::int32_t>(pair >> 32), static_cast<std::int32_t>(pair), old[i].merge);
    }
  }
}

void MergeTable::put(std::int32_t left, std::int32_t right, Merge merge) {
  if ((count_ + 1) * 2 > mask_ + 1) {
    reserve((count_ + 1) * 2);
  }
  const std::uint64_t key = key_of(left, right);
  std::size_t i = hash(key) & mask_;
  while (slots_[i].key != 0 && slots_[i].key != key) {
    i = (i + 1) & mask_;
  }
  count_ += slots_[i].key == 0 ? 1 : 0;
  slots_[i] = {key, merge};
}

void ShortTokens::reserve(std::size_t count) {
  std::size_t size = 2;
  while (size < count * 2) {
    size *= 2;
  }
  memory_ = zeroed_pages((size + kMostSteps) * sizeof(Slot));
  slots_ = static_cast<Slot*>(memory_.get());
  shift_ = 64 - static_cast<unsigned>(std::bit_width(size - 1));
}

void ShortTokens::put(std::string_view token, std::int32_t id) {
  const ShortKey key = ShortKey::of(token, 0, token.size());
  const std::size_t place = key.hash() >> shift_;
  for (std::size_t i = place; i < place + kMostSteps; ++i) {
    if (slots_[i].key.high == 0) {
      slots_[i] = {key, id};
      return;
    }
  }
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

void BpeModel::index_words() {
  if (symbols != Symbols::kBytes) {
    return;
  }
  // Every merge by what it makes.  A token that two merges make, or whose halves are made later than it, leaves the proof
  // of merges_into() without its ground; ignore_merges needs none.
  bool orderly = !ignore_merges;
  parts_.assign(orderly ? static_cast<std::size_t>(tokens.size()) : 0, Parts{});
  const auto learn = [&](std::int32_t left, std::int32_t right, Merge merge) {
    Parts& parts = parts_[static_cast<std::size_t>(merge.id)];
    orderly = orderly && parts.left < 0;
    parts = {left, right, merge.rank};
  };
  if (orderly) {
    merges.for_each(learn);
  }
  const auto rank_of = [this](std::int32_t id) {
    const Parts& parts = parts_[static_cast<std::size_t>(id)];
    return parts.left < 0 ? std::int64_t{-1} : std::int64_t{parts.rank};
  };
  // What is not merged has to be a byte's symbol, or no text leads to it.
  const auto is_byte = [this](std::int32_t id) {
    const std::string_view bytes = tokens.bytes(id);
    return bytes.size() == 1 && byte_ids[static_cast<unsigned char>(bytes[0])] == id;
  };
  for (std::int32_t id = 0; id < tokens.size() && orderly; ++id) {
    const Parts& parts = parts_[static_cast<std::size_t>(id)];
    for (const std::int32_t half : {parts.left, parts.right}) {
      orderly =
          orderly && (half < 0 || (rank_of(half) < std::int64_t{parts.rank} && (rank_of(half) >= 0 || is_byte(half))));
    }
    // A symbol that a text begins with must be no merge's.
    orderly = orderly && (parts.left < 0 || !is_byte(id));
  }
  if (!orderly) {
    parts_ = {};
  }
  if (!orderly && !ignore_merges) {
    return;
  }
  std::size_t count = 0;
  const auto is_word = [&](std::int32_t id) {
    const bool reached = ignore_merges || parts_[static_cast<std::size_t>(id)].left >= 0 || is_byte(id);
    return reached && tokens.is_searchable(id) && !tokens.bytes(id).empty() &&
           tokens.bytes(id).size() <= ShortKey::kMost;
  };
  for (std::int32_t id = 0; id < tokens.size(); ++id) {
    count += is_word(id) ? 1 : 0;
  }
  words_.reserve(count);
  for (std::int32_t id = 0; id < tokens.size(); ++id) {
    if (is_word(id)) {
      words_.put(tokens.bytes(id), id);
    }
  }
}

// Whether the bytes of a token are merged into it.  They are when its halves are merged into themselves and nothing is
// merged across their border before that, which is seen by taking merges back, the last one first: what stood at the
// border at each time must not have been mergeable earlier than what was taken back.
bool BpeModel::merges_into(std::int32_t id) const {
  std::array<std::int32_t, 4 * ShortKey::kMost> open;
  std::size_t count = 0;
  open[count++] = id;
  while (count > 0) {
    const Parts whole = parts_[static_cast<std::size_t>(open[--count])];
    if (whole.left < 0) {
      continue;
    }
    std::int32_t left = whole.left;
    std::int32_t right = whole.right;
    open[count++] = left;
    open[count++] = right;
    for (std::int64_t limit = whole.rank;;) {
      const Parts before = parts_[static_cast<std::size_t>(left)];
      const Parts behind = parts_[static_cast<std::size_t>(right)];
      if (before.left < 0 && behind.left < 0) {
        break;
      }
      // Of merges of one rank the left one comes first.
      if (behind.left < 0 || (before.left >= 0 && before.rank > behind.rank)) {
        limit = before.rank;
        left = before.right;
      } else {
        limit = std::int64_t{behind.rank} + 1;
        right = behind.left;
      }
      const Merge across = merges.find(left, right);
      if (across.rank != MergeTable::kNoRank && across.rank < limit) {
        return false;
      }
    }
  }
  return true;
}

void BpeModel::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (symbols == Symbols::kBytes && piece.size() <= ShortKey::kMost) {
    const std::int32_t id = words_.find(ShortKey::of(piece, 0, piece.size()));
    if (id >= 0 && (ignore_merges || merges_into(id))) {
      ids.push_back(id);
      return;
    }
  } else if (ignore_merges) {
    if (const auto id = tokens.find(piece)) {
      ids.push_back(*id);
      return;
    }
  }
  std::array<Link, kShortPiece> links;
  if (symbols == Symbols::kBytes && piece.size() <= kShortPiece) {
    std::size_t count = 0;
    for (const char byte : piece) {
      links[count].id = byte_ids[static_cast<unsigned char>(byte)];
      count += links[count].id >= 0 ? 1 : 0;
    }
    merge_short(merges, links.data(), count, ids);
    return;
  }
  std::vector<std::int32_t> started;
  start(piece, started);
  if (started.size() <= kShortPiece) {
    std::transform(started.begin(), started.end(), links.begin(), [](std::int32_t id) { return Link{id, {}}; });
    merge_short(merges, links.data(), started.size(), ids);
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

std::string with_plain_spaces(std::string_view token) {
  std::string plain;
  for (std::size_t at = 0; at < token.size();) {
    const bool is_space = token.substr(at).starts_with(kSpaceSymbol);
    plain += is_space ? ' ' : token[at];
    at += is_space ? kSpaceSymbol.size() : 1;
  }
  return plain;
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

}  // namespace caravan::tokenizer
