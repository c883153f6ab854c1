#include "caravan/tokenizer/bpe.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "caravan/tokenizer/merge_heap.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

void ShortTokens::reserve(std::size_t count) {
  std::size_t size = 2;
  while (size < count + count / 2) {
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
  is_complete_ = false;
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

void BpeModel::index() {
  merges.index();
  // Where a byte is lost, its neighbours meet.
  if (symbols == Symbols::kBytes && std::count(byte_ids.begin(), byte_ids.end(), -1) == 0) {
    byte_ranks_.resize(65536);
    for (std::size_t pair = 0; pair < byte_ranks_.size(); ++pair) {
      byte_ranks_[pair] = merges.rank(byte_ids[pair >> 8], byte_ids[pair & 0xFF]);
    }
  }
  if (!ignore_merges) {
    return;
  }
  const auto is_word = [this](std::int32_t id) {
    return tokens.is_searchable(id) && !tokens.bytes(id).empty() && tokens.bytes(id).size() <= ShortKey::kMost;
  };
  std::size_t count = 0;
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

std::int32_t BpeModel::find_word(std::string_view piece) const {
  if (piece.size() <= ShortKey::kMost) {
    const std::int32_t id = words_.find(ShortKey::of(piece, 0, piece.size()));
    if (id >= 0 || words_.is_complete()) {
      return id;
    }
  }
  return tokens.find(piece).value_or(-1);
}

void BpeModel::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (const std::int32_t id = ignore_merges ? find_word(piece) : -1; id >= 0) {
    ids.push_back(id);
    return;
  }
  std::vector<std::int32_t> started;
  start(piece, started);
  if (started.size() > ShortMerges::kMost) {
    merge_long(merges, started, ids, [](std::int32_t, std::int32_t, std::int32_t) {});
    return;
  }
  ShortMerges few;
  for (const std::int32_t symbol : started) {
    few.push(symbol);
  }
  few.look_up(merges);
  merge_together(merges, {&few, 1});
  ids.insert(ids.end(), few.symbols().begin(), few.symbols().end());
}

void BpeModel::encode(std::span<const std::string_view> pieces, std::span<ShortMerges> merged) const {
  if (ignore_merges) {
    for (const std::string_view piece : pieces) {
      words_.prefetch(ShortKey::of(piece, 0, std::min(piece.size(), ShortKey::kMost)));
    }
  }
  std::vector<std::int32_t> started;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::string_view piece = pieces[i];
    merged[i].clear();
    if (const std::int32_t id = ignore_merges ? find_word(piece) : -1; id >= 0) {
      merged[i].push(id);
    } else if (!byte_ranks_.empty()) {
      std::size_t pair = 0;
      for (const char byte : piece) {
        pair = (pair << 8 | static_cast<unsigned char>(byte)) & 0xFFFF;
        merged[i].push(byte_ids[pair & 0xFF], byte_ranks_[pair]);
      }
    } else {
      started.clear();
      start(piece, started);
      for (std::size_t j = 0; j < started.size() && started.size() <= ShortMerges::kMost; ++j) {
        merged[i].push(started[j]);
      }
      merged[i].prefetch(merges);
    }
  }
  if (byte_ranks_.empty()) {
    for (ShortMerges& piece : merged) {
      piece.look_up(merges);
    }
  }
  merge_together(merges, merged);
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
