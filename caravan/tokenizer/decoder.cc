#include "caravan/tokenizer/decoder.h"

#include <algorithm>
#include <utility>

#include "caravan/tokenizer/bpe.h"
#include "caravan/tokenizer/normalizer.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

using Kind = DecodeStep::Kind;

int hex_value(char letter) {
  if (letter >= '0' && letter <= '9') {
    return letter - '0';
  }
  if (letter >= 'a' && letter <= 'f') {
    return letter - 'a' + 10;
  }
  return letter >= 'A' && letter <= 'F' ? letter - 'A' + 10 : -1;
}

std::size_t place_of(const std::vector<DecodeStep>& steps, Kind kind) {
  const auto found =
      std::find_if(steps.begin(), steps.end(), [kind](const DecodeStep& step) { return step.kind == kind; });
  return static_cast<std::size_t>(found - steps.begin());
}

// How often `one` stands at the end of the text.
std::size_t repeats_at_end(std::string_view text, std::string_view one) {
  std::size_t count = 0;
  while (text.ends_with(one)) {
    text.remove_suffix(one.size());
    ++count;
  }
  return count;
}

std::string_view strip(std::string_view token, const DecodeStep& step) {
  for (std::size_t i = 0; i < step.start && token.starts_with(step.content); ++i) {
    token.remove_prefix(step.content.size());
  }
  for (std::size_t i = 0; i < step.stop && token.ends_with(step.content); ++i) {
    token.remove_suffix(step.content.size());
  }
  return token;
}

}  // namespace

std::optional<unsigned char> byte_named_by(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') {
    return std::nullopt;
  }
  const int high = hex_value(token[3]);
  const int low = hex_value(token[4]);
  // Rust reads "+F" as a number too.
  if (low >= 0 && token[3] == '+') {
    return static_cast<unsigned char>(low);
  }
  return high < 0 || low < 0 ? std::nullopt : std::optional(static_cast<unsigned char>(high * 16 + low));
}

std::string bytes_of(const DecodeRules& rules, std::int32_t id, std::string_view token) {
  if (rules.kind == DecodeRules::Kind::kPieces) {
    switch (rules.roles[static_cast<std::size_t>(id)]) {
      case PieceRole::kText:
        return replace_all(token, kSpaceSymbol, " ", token.size());
      case PieceRole::kByte:
        return std::string(1, static_cast<char>(byte_named_by(token).value_or(0)));
      default:
        return std::string(token);
    }
  }
  const std::size_t limit = growth_limit(token.size());
  std::string bytes(token);
  for (const DecodeStep& step : rules.steps) {
    if (step.kind == Kind::kReplace) {
      bytes = step.pattern ? replace_all(bytes, *step.pattern, step.content, limit)
                           : replace_all(bytes, step.literal, step.content, limit);
    } else if (step.kind == Kind::kMetaspace) {
      bytes = replace_all(bytes, step.literal, " ", limit);
    } else if (const auto byte = byte_named_by(bytes); byte && step.kind == Kind::kByteFallback) {
      bytes.assign(1, static_cast<char>(*byte));
    }
  }
  return bytes;
}

TokenDecoder::TokenDecoder(const DecodeRules& rules, bool eager)
    : rules_(rules),
      eager_(eager),
      byte_step_(place_of(rules.steps, Kind::kByteFallback)),
      fuse_step_(place_of(rules.steps, Kind::kFuse)) {
  reset();
}

void TokenDecoder::reset() {
  states_.assign(rules_.steps.size(), {});
  for (std::size_t i = 0; i < states_.size(); ++i) {
    states_[i].front_left = rules_.steps[i].start;
  }
  run_.clear();
  broken_ = false;
  first_space_open_ = true;
  space_dropped_ = false;
  any_text_ = false;
}

void TokenDecoder::push(std::int32_t id, std::string_view token, std::string& out) {
  switch (rules_.kind) {
    case DecodeRules::Kind::kBytes:
      out.append(token);
      break;
    case DecodeRules::Kind::kSteps:
      step(token, 0, out);
      break;
    case DecodeRules::Kind::kPieces:
      piece(id, token, out);
      break;
  }
}

void TokenDecoder::finish(std::string& out) {
  if (rules_.kind == DecodeRules::Kind::kPieces) {
    flush_pieces(/*at_end=*/true, out);
  } else if (rules_.kind == DecodeRules::Kind::kSteps) {
    flush_run(out);
    for (std::size_t i = fuse_step_ + 1; i < states_.size(); ++i) {
      // Strip holds back no more than it takes away.
      if (rules_.steps[i].kind == Kind::kReplace) {
        fused(std::exchange(states_[i].held, ""), i + 1, out);
      }
    }
  }
  reset();
}

void TokenDecoder::step(std::string_view token, std::size_t number, std::string& out) {
  const std::size_t limit = growth_limit(token.size());
  std::string changed;
  for (; number < rules_.steps.size(); ++number) {
    const DecodeStep& one = rules_.steps[number];
    switch (one.kind) {
      case Kind::kReplace:
        changed = one.pattern ? replace_all(token, *one.pattern, one.content, limit)
                              : replace_all(token, one.literal, one.content, limit);
        token = changed;
        break;
      case Kind::kMetaspace:
        changed = replace_all(token, one.literal, one.prepended && states_[number].tokens == 0 ? "" : " ", limit);
        ++states_[number].tokens;
        token = changed;
        break;
      case Kind::kStrip:
        token = strip(token, one);
        break;
      case Kind::kByteFallback:
        return bytes(token, number, out);
      case Kind::kFuse:
        return fused(token, number + 1, out);
    }
  }
  out.append(token);
}

void TokenDecoder::bytes(std::string_view token, std::size_t number, std::string& out) {
  const auto byte = byte_named_by(token);
  if (!byte) {
    flush_run(out);
    return step(token, number + 1, out);
  }
  run_ += static_cast<char>(*byte);
  if (!eager_) {
    return;
  }
  while (!broken_ && !run_.empty()) {
    const std::size_t length = character_length_at(run_, 0);
    if (length == 0) {
      broken_ = certain_prefix(run_) > 0;
      break;
    }
    step(std::string_view(run_).substr(0, length), number + 1, out);
    run_.erase(0, length);
  }
  if (broken_) {
    for (std::size_t left = std::exchange(run_, "").size(); left > 0; --left) {
      step(kReplacementCharacter, number + 1, out);
    }
  }
}

void TokenDecoder::flush_run(std::string& out) {
  const std::string run = std::exchange(run_, "");
  broken_ = false;
  if (run.empty()) {
    return;
  }
  if (!first_invalid_byte(run)) {
    return step(run, byte_step_ + 1, out);
  }
  for (std::size_t i = 0; i < run.size(); ++i) {
    step(kReplacementCharacter, byte_step_ + 1, out);
  }
}

void TokenDecoder::fused(std::string_view text, std::size_t number, std::string& out) {
  while (number < rules_.steps.size() && rules_.steps[number].kind == Kind::kFuse) {
    ++number;
  }
  if (number == rules_.steps.size()) {
    out.append(text);
  } else if (rules_.steps[number].kind == Kind::kStrip) {
    strip_stream(text, number, out);
  } else {
    replace_stream(text, number, out);
  }
}

void TokenDecoder::strip_stream(std::string_view text, std::size_t number, std::string& out) {
  const DecodeStep& one = rules_.steps[number];
  StepState& state = states_[number];
  while (state.at_front && state.front_left > 0 && text.starts_with(one.content)) {
    text.remove_prefix(one.content.size());
    --state.front_left;
  }
  if (text.empty()) {
    return;
  }
  state.at_front = false;
  if (one.stop == 0) {
    return fused(text, number + 1, out);
  }
  const std::string all = std::exchange(state.held, "").append(text);
  const std::size_t kept = std::min(repeats_at_end(all, one.content), one.stop) * one.content.size();
  state.held = all.substr(all.size() - kept);
  fused(std::string_view(all).substr(0, all.size() - kept), number + 1, out);
}

void TokenDecoder::replace_stream(std::string_view text, std::size_t number, std::string& out) {
  const DecodeStep& one = rules_.steps[number];
  StepState& state = states_[number];
  const std::string all = std::exchange(state.held, "").append(text);
  std::size_t at = 0;
  std::string changed;
  for (std::size_t found; (found = all.find(one.literal, at)) != std::string::npos; at = found + one.literal.size()) {
    changed.append(all, at, found - at).append(one.content);
  }
  // What later text may complete is held back.
  std::size_t end = all.size() - std::min(all.size() - at, one.literal.size() - 1);
  while (!std::string_view(one.literal).starts_with(std::string_view(all).substr(end))) {
    ++end;
  }
  state.held = all.substr(end);
  fused(changed.append(all, at, end - at), number + 1, out);
}

void TokenDecoder::give(std::string_view text, std::string& out) {
  out.append(text);
  any_text_ = any_text_ || !text.empty();
}

// As SentencePieceProcessor::Decode: the first mark of the text is the space that encoding put there.
void TokenDecoder::piece(std::int32_t id, std::string_view token, std::string& out) {
  const PieceRole role = rules_.roles[static_cast<std::size_t>(id)];
  if (role == PieceRole::kByte) {
    run_ += static_cast<char>(byte_named_by(token).value_or(0));
    return flush_pieces(/*at_end=*/false, out);
  }
  flush_pieces(/*at_end=*/true, out);
  first_space_open_ = first_space_open_ && !space_dropped_ && !any_text_;
  space_dropped_ = false;
  switch (role) {
    case PieceRole::kControl:
    case PieceRole::kByte:
      break;
    case PieceRole::kUnknown:
      give(rules_.unknown_text, out);
      break;
    case PieceRole::kPlain:
      give(token, out);
      break;
    case PieceRole::kText:
      if (first_space_open_ && (rules_.drops_first_space || rules_.drops_leading_spaces) &&
          token.starts_with(kSpaceSymbol)) {
        token.remove_prefix(kSpaceSymbol.size());
        space_dropped_ = !rules_.drops_leading_spaces;
      }
      give(replace_all(token, kSpaceSymbol, " ", token.size()), out);
      break;
  }
}

void TokenDecoder::flush_pieces(bool at_end, std::string& out) {
  while (!run_.empty()) {
    const std::size_t length = character_length_at(run_, 0);
    if (length == 0 && !at_end && certain_prefix(run_) == 0) {
      return;
    }
    give(length > 0 ? std::string_view(run_).substr(0, length) : kReplacementCharacter, out);
    run_.erase(0, std::max<std::size_t>(length, 1));
  }
}

}  // namespace caravan::tokenizer
