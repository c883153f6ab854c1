// Pieces that have been merged, and their ids: words come again.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "caravan/tokenizer/bpe.h"
#include "caravan/tokenizer/pages.h"

namespace caravan::tokenizer {

// For one thread at a time.  Holds at most 12 MB, and its memory of short pieces has two places for each, so that a
// text that aims at one of them costs merges and no search.
class PieceCache {
 public:
  // How pieces are written: as the model spells them, or with a space for U+2581.
  enum class Spaces { kSpelled, kPlain };

  explicit PieceCache(const BpeModel& model, Spaces spaces = Spaces::kSpelled);

  // To be told how long the text is that comes.
  void expect(std::size_t bytes);

  // Appends the ids of one piece.
  void encode(std::string_view piece, std::vector<std::int32_t>& ids);
  // The same for pieces that follow each other: `ends`, `count` of them, are their ends in `text`, the first begins at
  // `at`.
  void encode(std::string_view text, std::size_t at, const std::uint32_t* ends, std::size_t count,
              std::vector<std::int32_t>& ids);

 private:
  static constexpr std::size_t kShort = ShortKey::kMost;
  static constexpr std::size_t kBatch = 768;    // pieces whose new ones are merged together
  static constexpr std::size_t kAhead = 32;     // slots that come from memory at a time
  static constexpr std::size_t kTogether = 24;  // pieces that are merged at a time
  static constexpr std::size_t kInline = 3;     // ids that fit a slot

  // More than kInline ids lie in spilled_, at the place ids[0].
  struct Slot {
    ShortKey key;
    std::int32_t ids[kInline];
    std::uint32_t count;
  };
  struct LongSlot {
    std::uint64_t hash = 0;
    std::uint32_t piece = 0;   // offset in long_pieces_
    std::uint32_t ids = 0;     // offset in long_ids_
    std::uint16_t length = 0;  // bytes; 0: free
    std::uint16_t count = 0;   // ids
  };
  Slot* pair_of(std::uint64_t hash) const { return slots_ + (hash >> shift_) * 2; }

  void make_slots(std::size_t count);
  const Slot& find(const ShortKey& key, std::uint64_t hash, std::string_view piece);
  const Slot& add(const ShortKey& key, std::uint64_t hash, std::string_view piece);
  const Slot& keep(const ShortKey& key, std::uint64_t hash, std::span<const std::int32_t> ids);
  void look_ahead(std::string_view text, std::size_t at, std::span<const std::uint32_t> ends, bool may_be_new);
  void append(std::string_view text, std::size_t at, std::span<const std::uint32_t> ends,
              std::vector<std::int32_t>& ids);
  void add_together(std::string_view text, std::span<const std::uint32_t> ends, std::span<const std::uint32_t> fresh);
  std::string_view spell(std::string_view piece, std::string& room) const;
  static void place(Slot* pair, const Slot& slot);
  void grow();
  std::span<const std::int32_t> ids_of(const Slot& slot) const;
  // Ids last until the next call.
  std::span<const std::int32_t> find_short(std::string_view piece);
  std::span<const std::int32_t> find_long(std::string_view piece);
  void grow_long();
  void merge(std::string_view piece);  // into merged_

  const BpeModel& model_;
  Spaces spaces_;
  Pages memory_;
  Slot* slots_ = nullptr;  // in memory_, two to a cache line
  std::size_t slot_count_ = 0;
  unsigned shift_ = 0;     // of a hash: what remains is the number of a pair of slots
  std::size_t added_ = 0;  // to these slots
  std::vector<std::int32_t> spilled_;
  std::vector<std::int32_t> merged_;
  std::string spelled_;
  // Of the batch at hand.
  std::array<ShortKey, kBatch> keys_;
  std::array<std::uint64_t, kBatch> hashes_;
  std::size_t added_before_ = 0;
  std::array<ShortMerges, kTogether> together_;
  std::array<std::string, kTogether> together_spelled_;

  std::vector<LongSlot> long_slots_;
  std::size_t long_used_ = 0;
  std::string long_pieces_;
  std::vector<std::int32_t> long_ids_;
};

// Caches that wait for the next call, so that short texts find what others left.  Keeps at most as many as have been in
// use at once, and no more than kMost.
class PieceCaches {
 public:
  static constexpr std::size_t kMost = 64;

  class Lent {
   public:
    Lent(PieceCaches& of, std::unique_ptr<PieceCache> cache) : of_(&of), cache_(std::move(cache)) {}
    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;
    ~Lent() { of_->take_back(std::move(cache_)); }
    PieceCache& operator*() const { return *cache_; }
    PieceCache* operator->() const { return cache_.get(); }

   private:
    PieceCaches* of_;
    std::unique_ptr<PieceCache> cache_;
  };

  PieceCaches() { waiting_.reserve(kMost); }  // so that giving back cannot fail

  // Every call with the same arguments.
  Lent lend(const BpeModel& model, PieceCache::Spaces spaces = PieceCache::Spaces::kSpelled);

 private:
  void take_back(std::unique_ptr<PieceCache> cache);

  std::mutex mutex_;
  std::vector<std::unique_ptr<PieceCache>> waiting_;
};

}  // namespace caravan::tokenizer
