#include "caravan/tokenizer/piece_encoder.h"

#include <array>
#include <utility>

#include "caravan/tokenizer/normalizer.h"
#include "caravan/tokenizer/unicode.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kBatch = 768;  // pieces that are cut before any is merged

// The numbers of a text, one by one, and what lies between.
std::vector<Stretch> find_numbers(std::string_view text) {
  std::vector<Stretch> stretches;
  std::size_t covered = 0;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint character = code_point_at(text, at);
    const std::size_t end = at + character.length;
    if (is_numeric(character.value)) {
      if (covered < at) {
        stretches.push_back({covered, at, false});
      }
      stretches.push_back({at, end, true});
      covered = end;
    }
    at = end;
  }
  if (covered < text.size()) {
    stretches.push_back({covered, text.size(), false});
  }
  return stretches;
}

}  // namespace

SplitStep isolating_step(std::string_view pattern, const std::string& source) {
  SplitStep step;
  if (pattern == kGpt2Pattern) {
    step.kind = SplitStep::Kind::kGpt2;
  } else if (pattern == kLlama3Pattern || pattern == kQwen2Pattern) {
    step.kind = SplitStep::Kind::kLlama3;
    step.digits = pattern == kQwen2Pattern ? 1 : 3;
  } else if (pattern == kO200kPattern) {
    step.kind = SplitStep::Kind::kO200k;
  } else {
    step.kind = SplitStep::Kind::kPattern;
    step.pattern = Pattern::compile(pattern, source);
  }
  return step;
}

std::optional<ScanKind> scan_of(const std::vector<SplitStep>& steps) {
  using Kind = SplitStep::Kind;
  if (steps.size() == 2 && steps[0].kind == Kind::kDigits && steps[0].behavior == SplitBehavior::kIsolated &&
      steps[1].kind == Kind::kGpt2) {
    return ScanKind::kDigitsGpt2;
  }
  if (steps.size() != 1) {
    return std::nullopt;
  }
  switch (steps[0].kind) {
    case Kind::kGpt2:
      return ScanKind::kGpt2;
    case Kind::kLlama3:
      return steps[0].digits == 1 ? ScanKind::kQwen2 : ScanKind::kLlama3;
    case Kind::kO200k:
      return ScanKind::kO200k;
    default:
      return std::nullopt;
  }
}

void encode_spaced(std::string_view text, bool prefix, const BpeModel& model, PieceCache& cache,
                   std::vector<std::int32_t>& ids) {
  std::array<std::uint32_t, kBatch> ends;
  std::size_t at = 0;
  if (prefix) {
    std::string first(" ");
    if (!text.empty() && !model.cuts->cuts(' ', static_cast<unsigned char>(text[0]))) {
      model.cuts->find_ends(text, 0, ends.data(), 1);
      at = ends[0];
      first.append(text.substr(0, at));
    }
    cache.encode(first, ids);
  }
  while (at < text.size()) {
    const std::size_t count = model.cuts->find_ends(text, at, ends.data(), ends.size());
    cache.encode(text, at, ends.data(), count, ids);
    at = ends[count - 1];
  }
}

void PieceEncoder::step(std::string_view text, bool begins_text, std::size_t number) {
  if (text.empty()) {
    return;
  }
  if (number == steps_.size()) {
    return merge(text);
  }
  if (number == 0 && scan_ && !model_.cut_before_space) {
    std::array<std::uint32_t, kBatch> ends;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t count = find_piece_ends(*scan_, text, at, ends.data(), ends.size());
      cache_.encode(text, at, ends.data(), count, ids_);
      at = ends[count - 1];
    }
    return;
  }
  const SplitStep& one = steps_[number];
  switch (one.kind) {
    case SplitStep::Kind::kPrefixSpace:
      if (text[0] == ' ') {
        return step(text, begins_text, number + 1);
      }
      return step(std::string(" ").append(text), begins_text, number + 1);
    case SplitStep::Kind::kGpt2:
      return scan(text, begins_text, number, &gpt2_piece_end);
    case SplitStep::Kind::kLlama3:
      return scan(text, begins_text, number, [digits = one.digits](std::string_view all, std::size_t at) {
        return llama3_piece_end(all, at, digits);
      });
    case SplitStep::Kind::kO200k:
      return scan(text, begins_text, number, &o200k_piece_end);
    case SplitStep::Kind::kDigits:
      return pieces(text, begins_text, number, find_numbers(text));
    case SplitStep::Kind::kMetaspace:
      return metaspace(text, begins_text, number);
    case SplitStep::Kind::kPattern:
      return pieces(text, begins_text, number, one.pattern->find(text));
  }
}

void PieceEncoder::merge(std::string_view piece) {
  if (!model_.cut_before_space) {
    return cache_.encode(piece, ids_);
  }
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t end = word_end(piece, at);
    cache_.encode(piece.substr(at, end - at), ids_);
    at = end;
  }
}

void PieceEncoder::metaspace(std::string_view text, bool begins_text, std::size_t number) {
  const SplitStep& one = steps_[number];
  std::string marked = replace_all(text, " ", one.mark, growth_limit(text.size()));
  const bool wanted = one.scheme == PrependScheme::kAlways || (one.scheme == PrependScheme::kFirst && begins_text);
  if (wanted && !marked.starts_with(one.mark)) {
    marked.insert(0, one.mark);
  }
  if (!one.cuts) {
    return step(marked, begins_text, number + 1);
  }
  const std::string_view all = marked;
  scan(all, begins_text, number, [&one](std::string_view whole, std::size_t at) {
    // A mark begins a piece, whatever follows it.
    const std::size_t from = at + (whole.substr(at).starts_with(one.mark) ? one.mark.size() : 0);
    return std::min(whole.find(one.mark, from), whole.size());
  });
}

void PieceEncoder::pieces(std::string_view text, bool begins_text, std::size_t number, std::vector<Stretch> stretches) {
  const SplitStep& one = steps_[number];
  for (Stretch& stretch : stretches) {
    stretch.is_match = stretch.is_match != one.invert;
  }
  for (const Stretch& piece : split_pieces(std::move(stretches), one.behavior)) {
    step(text.substr(piece.begin, piece.end - piece.begin), begins_text && piece.begin == 0, number + 1);
  }
}

template <typename PieceEnd>
void PieceEncoder::scan(std::string_view text, bool begins_text, std::size_t number, PieceEnd piece_end) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = piece_end(text, at);
    step(text.substr(at, end - at), begins_text && at == 0, number + 1);
    at = end;
  }
}

}  // namespace caravan::tokenizer
