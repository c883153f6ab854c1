#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/merge_heap.h"
#include "caravan/tokenizer/sentencepiece.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

// What an unknown character costs in a unigram model, beside the rarest piece.
constexpr float kUnknownPenalty = 10;

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

void SentencePieceModel::Encoder::encode(std::string_view text, bool begins, std::vector<std::int32_t>& ids) {
  const std::string normalized = of_.normalize(text, begins);
  if (normalized.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw InputError(
        fmt::format("a text of {} bytes once it is normalised is too long to encode at once; cut it into "
                    "smaller ones",
                    grouped(static_cast<std::int64_t>(normalized.size()))));
  }
  const std::size_t from = ids.size();
  if (of_.kind_ == SentencePieceSpec::Kind::kUnigram) {
    of_.unigram(normalized, ids);
  } else if (of_.has_unused_) {
    of_.merge_with_unused(normalized, ids);
  } else {
    merge(normalized, ids);
  }
  if (!of_.model_->byte_fallback) {
    // Unknown characters that follow each other are one token.
    const auto both_unknown = [unknown = of_.model_->unknown](std::int32_t left, std::int32_t right) {
      return left == unknown && right == unknown;
    };
    ids.erase(std::unique(ids.begin() + static_cast<std::ptrdiff_t>(from), ids.end(), both_unknown), ids.end());
  }
}

void SentencePieceModel::Encoder::merge(std::string_view normalized, std::vector<std::int32_t>& ids) {
  for_each_stretch(
      of_.user_defined_, normalized, [&](std::string_view stretch) { merge_words(stretch, ids); },
      [&](std::int32_t id) { ids.push_back(id); });
}

void SentencePieceModel::Encoder::merge_words(std::string_view stretch, std::vector<std::int32_t>& ids) {
  merged_.clear();
  for (std::size_t at = 0; at < stretch.size();) {
    const std::size_t end = of_.model_->cut_before_space ? word_end(stretch, at) : stretch.size();
    cache_.encode(stretch.substr(at, end - at), merged_);
    at = end;
  }
  if (of_.bare_characters_.empty()) {
    ids.insert(ids.end(), merged_.begin(), merged_.end());
    return;
  }
  for (const std::int32_t symbol : merged_) {
    of_.put_symbol(symbol, ids);
  }
}

void SentencePieceModel::put_symbol(std::int32_t symbol, std::vector<std::int32_t>& ids) const {
  const auto bare = static_cast<std::size_t>(symbol) - kinds_.size();
  if (static_cast<std::size_t>(symbol) < kinds_.size()) {
    ids.push_back(symbol);
  } else if (!model_->byte_fallback) {
    ids.push_back(model_->unknown);
  } else {
    std::string text;
    append_utf8(text, bare_characters_[bare]);
    put_bytes(text, ids);
  }
}

void SentencePieceModel::put_bytes(std::string_view text, std::vector<std::int32_t>& ids) const {
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
  std::vector<std::int32_t> open;
  for (const std::int32_t symbol : merged) {
    open.push_back(symbol < 0 ? ~symbol : symbol);
    while (!open.empty()) {
      const std::int32_t one = open.back();
      open.pop_back();
      const auto parts = made_of.find(one);
      if (parts == made_of.end()) {
        put_symbol(one, ids);
      } else {
        open.push_back(parts->second.second);
        open.push_back(parts->second.first);
      }
    }
  }
}

// The best path by Viterbi, with sums and comparisons in the reference's precision: a score is added as a double and
// kept as a float, so that equal sums stay equal.
void SentencePieceModel::unigram(std::string_view text, std::vector<std::int32_t>& ids) const {
  std::vector<Best> best(text.size() + 1);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = code_point_at(text, at).length;
    unigram_step(text, at, length, best);
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

void SentencePieceModel::unigram_step(std::string_view text, std::size_t at, std::size_t character,
                                      std::vector<Best>& best) const {
  const float till_here = best[at].score;
  bool has_single = false;
  const auto offer = [&](std::size_t end, double score, std::int32_t id) {
    Best& target = best[end];
    if (target.begin < 0 || score > static_cast<double>(target.score)) {
      target = {static_cast<float>(score), id, static_cast<std::int32_t>(at)};
    }
  };
  pieces_.prefixes(text, at, [&](std::int32_t id, std::size_t length) {
    const auto place = static_cast<std::size_t>(id);
    // A user-defined piece is as good as the best one for each of its bytes.
    const double score = kinds_[place] == TokenKind::kUserDefined
                             ? static_cast<double>(static_cast<float>(length) * most_) - 0.1
                             : static_cast<double>(scores_[place]);
    offer(at + length, score + static_cast<double>(till_here), id);
    has_single = has_single || length == character;
  });
  if (!has_single) {
    const float score = (least_ - kUnknownPenalty) + till_here;
    offer(at + character, static_cast<double>(score), model_->unknown);
  }
}

}  // namespace caravan::tokenizer
