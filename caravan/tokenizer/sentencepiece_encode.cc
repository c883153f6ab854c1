#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/merge_heap.h"
#include "caravan/tokenizer/piece_encoder.h"
#include "caravan/tokenizer/sentencepiece.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

// What an unknown character costs in a unigram model, beside the rarest piece.
constexpr float kUnknownPenalty = 10;
// Beyond it a path's score begins anew from 0.
constexpr float kResetScore = 100'000;
// How often an unused piece is taken apart: from there on it stays.
constexpr int kMaxDepth = 100;

// Above every piece of a vocabulary, whose scores are logarithms of probabilities; of two, the longer.
float user_defined_score(std::size_t length) {
  return static_cast<float>(0.1 * static_cast<double>(static_cast<int>(length) - 1));
}

// Calls text(begin, end) and known(id) for what lies between the user-defined pieces and for these, in order.
template <typename Text, typename Known>
void for_each_stretch(const ByteTrie& user_defined, std::string_view all, Text text, Known known) {
  std::size_t begin = 0;
  for (std::size_t at = 0; at < all.size() && !user_defined.empty();) {
    const auto [id, length] = user_defined.longest(all, at);
    if (length == 0) {
      at += code_point_at(all, at).length;
      continue;
    }
    if (begin < at) {
      text(all.substr(begin, at - begin));
    }
    known(id);
    at += length;
    begin = at;
  }
  if (begin < all.size()) {
    text(all.substr(begin));
  }
}

}  // namespace

bool SentencePieceModel::has_plain_spaces() const {
  return kind_ == SentencePieceSpec::Kind::kBpe && model_->cuts && space_ == kSpaceSymbol && user_defined_.empty();
}

void SentencePieceModel::encode(std::string_view text, bool begins, PieceCache& cache,
                                std::vector<std::int32_t>& ids) const {
  const std::size_t from = ids.size();
  const bool plain = has_plain_spaces();
  if (plain && charsmap_.empty() && !remove_extra_whitespaces_ && !whitespace_as_suffix_) {
    encode_spaced(text, !text.empty() && begins && add_dummy_prefix_, *model_, cache, ids);
  } else {
    const std::string normalized = normalize(text, begins, plain ? " " : space_);
    if (normalized.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
      throw InputError(
          fmt::format("a text of {} bytes once it is normalised is too long to encode at once; cut it into "
                      "smaller ones",
                      grouped(static_cast<std::int64_t>(normalized.size()))));
    }
    if (plain) {
      encode_spaced(normalized, /*prefix=*/false, *model_, cache, ids);
    } else if (kind_ == SentencePieceSpec::Kind::kUnigram) {
      unigram(normalized, ids);
    } else if (has_unused_) {
      merge_with_unused(normalized, ids);
    } else {
      merge(normalized, cache, ids);
    }
  }
  if (plain && !bare_characters_.empty()) {
    const std::vector<std::int32_t> symbols(ids.begin() + static_cast<std::ptrdiff_t>(from), ids.end());
    ids.resize(from);
    for (const std::int32_t symbol : symbols) {
      put_symbol(symbol, ids);
    }
  }
  if (!model_->byte_fallback) {
    // Unknown characters that follow each other are one token.
    const auto both_unknown = [unknown = model_->unknown](std::int32_t left, std::int32_t right) {
      return left == unknown && right == unknown;
    };
    ids.erase(std::unique(ids.begin() + static_cast<std::ptrdiff_t>(from), ids.end(), both_unknown), ids.end());
  }
}

void SentencePieceModel::merge(std::string_view normalized, PieceCache& cache, std::vector<std::int32_t>& ids) const {
  std::vector<std::int32_t> merged;
  for_each_stretch(
      user_defined_, normalized,
      [&](std::string_view stretch) {
        for (std::size_t at = 0; at < stretch.size();) {
          const std::size_t end = model_->cut_before_space ? word_end(stretch, at) : stretch.size();
          merged.clear();
          cache.encode(stretch.substr(at, end - at), merged);
          for (const std::int32_t symbol : merged) {
            put_symbol(symbol, ids);
          }
          at = end;
        }
      },
      [&](std::int32_t id) { ids.push_back(id); });
}

void SentencePieceModel::put_symbol(std::int32_t symbol, std::vector<std::int32_t>& ids) const {
  if (static_cast<std::size_t>(symbol) < kinds_.size()) {
    ids.push_back(symbol);
    return;
  }
  std::string text;
  append_utf8(text, bare_characters_[static_cast<std::size_t>(symbol) - kinds_.size()]);
  put_unknown(text, ids);
}

void SentencePieceModel::put_unknown(std::string_view text, std::vector<std::int32_t>& ids) const {
  if (!model_->byte_fallback) {
    ids.push_back(model_->unknown);
    return;
  }
  for (const char byte : text) {
    ids.push_back(model_->byte_ids[static_cast<unsigned char>(byte)]);
  }
}

// An unused piece is merged like any other, and taken apart again in the end: in the way in which it could have been
// merged last, anywhere in the text.  So the text is one word here.
void SentencePieceModel::merge_with_unused(std::string_view normalized, std::vector<std::int32_t>& ids) const {
  std::vector<std::int32_t> start;
  for_each_stretch(
      user_defined_, normalized, [&](std::string_view stretch) { model_->start(stretch, start); },
      [&](std::int32_t id) { start.push_back(~id); });
  std::unordered_map<std::int32_t, std::pair<std::int32_t, std::int32_t>> made_of;
  std::vector<std::int32_t> merged;
  merge_long(model_->merges, start, merged, [&](std::int32_t left, std::int32_t right, std::int32_t id) {
    if (is_unused(id)) {
      made_of[id] = {left, right};
    }
  });
  // Symbols that are still to be taken apart, with how often that was done on the way to them.
  std::vector<std::pair<std::int32_t, int>> open;
  for (const std::int32_t symbol : merged) {
    open.emplace_back(symbol < 0 ? ~symbol : symbol, 0);
    while (!open.empty()) {
      const auto [one, depth] = open.back();
      open.pop_back();
      const auto parts = made_of.find(one);
      const bool unused = static_cast<std::size_t>(one) < kinds_.size() && is_unused(one);
      if (!unused || depth > kMaxDepth) {
        put_symbol(one, ids);
      } else if (parts == made_of.end()) {
        put_unknown(model_->tokens.bytes(one), ids);
      } else {
        open.emplace_back(parts->second.second, depth + 1);
        open.emplace_back(parts->second.first, depth + 1);
      }
    }
  }
}

// The best path by Viterbi, with sums and comparisons in the reference's precision, float: over a long text its rounding
// decides between paths.  So sums are taken relative to the present place where the reference does that.
void SentencePieceModel::unigram(std::string_view text, std::vector<std::int32_t>& ids) const {
  std::vector<Best> best(text.size() + 1);
  std::size_t frontier = 0;
  for (std::size_t at = 0; at < text.size();) {
    const float till_here = best[at].score;
    if (std::abs(till_here) > kResetScore) {
      for (std::size_t i = at; i <= frontier; ++i) {
        best[i].score -= i == at || best[i].begin >= 0 ? till_here : 0;
      }
    }
    const std::size_t length = code_point_at(text, at).length;
    frontier = std::max(frontier, unigram_step(text, at, length, best));
    at += length;
  }
  const std::size_t from = ids.size();
  for (std::size_t end = text.size(); end > 0;) {
    const Best& last = best[end];
    const auto begin = static_cast<std::size_t>(last.begin);
    if (last.id == model_->unknown && model_->byte_fallback) {
      for (std::size_t i = end; i > begin; --i) {
        ids.push_back(model_->byte_ids[static_cast<unsigned char>(text[i - 1])]);
      }
    } else {
      ids.push_back(last.id);
    }
    end = begin;
  }
  std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(from), ids.end());
}

// Lengthens the paths that end at `at`; the furthest place that one of them reaches.
std::size_t SentencePieceModel::unigram_step(std::string_view text, std::size_t at, std::size_t character,
                                             std::vector<Best>& best) const {
  const float till_here = best[at].score;
  std::size_t furthest = at;
  bool has_single = false;
  const auto offer = [&](std::size_t end, float piece, std::int32_t id) {
    furthest = std::max(furthest, end);
    Best& target = best[end];
    const float score = piece + till_here;
    if (target.begin < 0 || score > target.score) {
      target = {score, id, static_cast<std::int32_t>(at)};
    }
  };
  pieces_.prefixes(text, at, [&](std::int32_t id, std::size_t length) {
    const auto place = static_cast<std::size_t>(id);
    const bool user_defined = kinds_[place] == TokenKind::kUserDefined;
    offer(at + length, user_defined ? user_defined_score(length) : scores_[place], id);
    has_single = has_single || length == character;
  });
  if (!has_single) {
    offer(at + character, least_ - kUnknownPenalty, model_->unknown);
  }
  return furthest;
}

}  // namespace caravan::tokenizer
