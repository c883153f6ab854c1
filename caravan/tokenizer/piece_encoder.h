// From ordinary text to ids: the steps of a pre-tokenizer, one after the other, and the merges of what comes out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/tokenizer/bpe.h"
#include "caravan/tokenizer/pattern.h"
#include "caravan/tokenizer/piece_cache.h"
#include "caravan/tokenizer/piece_scan.h"
#include "caravan/tokenizer/split.h"

namespace caravan::tokenizer {

// When Metaspace puts its mark before a piece that does not begin with one.
enum class PrependScheme { kAlways, kFirst, kNever };  // kFirst: only where the piece begins the text

// One step of the pre-tokenizer: every piece so far is taken apart further.
struct SplitStep {
  enum class Kind {
    kGpt2,
    kLlama3,
    kO200k,
    kPattern,
    kDigits,       // numbers apart from what stands around them, each alone or as runs
    kPrefixSpace,  // a piece that does not begin with a space gets one
    kMetaspace     // a mark for every space, and perhaps before the piece; then cut before each mark
  };
  Kind kind = Kind::kGpt2;
  int digits = 3;                  // of kLlama3; of kDigits 1: each number alone
  std::optional<Pattern> pattern;  // of kPattern
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what lies between matches counts as the matches
  std::string mark;     // of kMetaspace: one character
  PrependScheme scheme = PrependScheme::kAlways;
  bool cuts = true;  // of kMetaspace: at all
};

// A Split step that isolates what the pattern matches: a hand scanner where there is one for it.  Throws what
// Pattern::compile throws.
SplitStep isolating_step(std::string_view pattern, const std::string& source);

// The scanner of 64 bytes that does what the steps do together, if there is one.
std::optional<ScanKind> scan_of(const std::vector<SplitStep>& steps);

// Encodes the stretches of one text.
class PieceEncoder {
 public:
  // All have to live as long as this; the cache is of this model.
  PieceEncoder(const std::vector<SplitStep>& steps, const BpeModel& model, PieceCache& cache,
               std::vector<std::int32_t>& ids)
      : steps_(steps), model_(model), scan_(scan_of(steps)), cache_(cache), ids_(ids) {}

  // `begins_text`: nothing stands before `text`.
  void encode(std::string_view text, bool begins_text) { step(text, begins_text, 0); }

 private:
  void step(std::string_view text, bool begins_text, std::size_t number);
  void merge(std::string_view piece);
  void metaspace(std::string_view text, bool begins_text, std::size_t number);
  void pieces(std::string_view text, bool begins_text, std::size_t number, std::vector<Stretch> stretches);
  template <typename PieceEnd>
  void scan(std::string_view text, bool begins_text, std::size_t number, PieceEnd piece_end);

  const std::vector<SplitStep>& steps_;
  const BpeModel& model_;
  std::optional<ScanKind> scan_;
  PieceCache& cache_;
  std::vector<std::int32_t>& ids_;
};

// Encodes text in which a space stands for U+2581, with model.cuts, which must be there.  `prefix`: with one more space
// before it.  The cache is of that model and of PieceCache::Spaces::kPlain.
void encode_spaced(std::string_view text, bool prefix, const BpeModel& model, PieceCache& cache,
                   std::vector<std::int32_t>& ids);

}  // namespace caravan::tokenizer
