#include "caravan/tokenizer/parts.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/fingerprint.h"
#include "caravan/tokenizer/readers.h"
#include "caravan/tokenizer/utf8.h"
#include "caravan/tokenizer/vocabulary.h"

namespace caravan::tokenizer {

namespace {

// What stands behind a name of tokenizer.ggml.pre.
struct PreTokenizer {
  std::vector<SplitStep> steps;
  bool ignore_merges = false;
  bool add_bos = false;
};

SplitStep scanner(SplitStep::Kind kind, int digits = 3) {
  return {.kind = kind, .digits = digits, .pattern = {}, .mark = {}};
}

SplitStep pattern(std::string_view text, const std::string& source) {
  return {.kind = SplitStep::Kind::kPattern, .pattern = Pattern::compile(text, source), .mark = {}};
}

constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

PreTokenizer pre_tokenizer(const std::string& name, const std::string& source) {
  using Kind = SplitStep::Kind;
  const auto is = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  SplitStep digits = scanner(Kind::kDigits, 1);
  if (is({"gpt-2", "gpt2", "phi-2", "olmo", "mpt", "jais"})) {
    return {.steps = {scanner(Kind::kGpt2)}};
  }
  if (is({"smollm", "starcoder", "refact", "command-r", "codeshell"})) {
    return {.steps = {digits, scanner(Kind::kGpt2)}};
  }
  if (is({"llama-bpe", "llama3", "llama-v3", "pixtral"})) {
    return {.steps = {scanner(Kind::kLlama3)}, .ignore_merges = true, .add_bos = true};
  }
  if (is({"dbrx", "smaug-bpe"})) {
    return {.steps = {scanner(Kind::kLlama3)}};
  }
  if (is({"qwen2", "stablelm2", "deepseek-r1-qwen", "megrez"})) {
    return {.steps = {scanner(Kind::kLlama3, 1)}};
  }
  if (is({"llama4", "gpt-4o"})) {
    return {.steps = {scanner(Kind::kO200k)}, .ignore_merges = true};
  }
  if (is({"tekken"})) {
    return {.steps = {pattern(kTekkenPattern, source)}, .ignore_merges = true, .add_bos = true};
  }
  if (is({"default", ""})) {
    return {.steps = {pattern(R"([\p{P}\$\+<=>\^~\|]+)", source), scanner(Kind::kGpt2), pattern(R"(\p{N}+)", source),
                      pattern("[0-9][0-9][0-9]", source)}};
  }
  throw UnsupportedError(fmt::format("{}: the pre-tokenizer \"{}\" is not supported", source, printable(name, 60)));
}

// Ids that are named have to be there.
std::optional<std::int32_t> checked(const std::optional<std::int32_t>& id, const char* name,
                                    const TokenizerParts& parts, const std::string& source) {
  if (id && (*id < 0 || static_cast<std::size_t>(*id) >= parts.vocabulary.size())) {
    throw FormatError(fmt::format("{}: the {} token is {}, but there are {} tokens", source, name, grouped(*id),
                                  grouped(static_cast<std::int64_t>(parts.vocabulary.size()))));
  }
  return id;
}

void check_texts(const TokenizerParts& parts, const std::string& source) {
  if (parts.vocabulary.empty()) {
    throw FormatError(fmt::format("{}: the vocabulary has no tokens", source));
  }
  for (std::size_t i = 0; i < parts.vocabulary.size(); ++i) {
    if (first_invalid_byte(parts.vocabulary[i].text)) {
      throw FormatError(fmt::format("{}: token {} (\"{}\") is not UTF-8", source, grouped(static_cast<std::int64_t>(i)),
                                    printable(parts.vocabulary[i].text, 60)));
    }
  }
}

void read_bytes_kind(const TokenizerParts& parts, const std::string& source, Tokenizer::Table& table,
                     PreTokenizer pre) {
  table.steps = std::move(pre.steps);
  table.model.ignore_merges = pre.ignore_merges;
  VocabularyBuilder vocabulary(table, source);
  vocabulary.reserve(parts.vocabulary.size(), parts.merges.size());
  std::vector<AddedToken> added;
  for (std::size_t i = 0; i < parts.vocabulary.size(); ++i) {
    const VocabularyEntry& entry = parts.vocabulary[i];
    const auto id = static_cast<std::int32_t>(std::min<std::size_t>(i, std::size_t{kMaxId} + 1));
    const bool special = entry.kind == TokenKind::kControl || entry.kind == TokenKind::kUnknown;
    const bool plain = special || entry.kind == TokenKind::kUserDefined || entry.kind == TokenKind::kUnused;
    if (entry.text.empty()) {
      vocabulary.add(fmt::format("[EMPTY_{}]", i), id, /*plain=*/true);
      continue;
    }
    vocabulary.add(entry.text, id, plain);
    if (plain && entry.kind != TokenKind::kUnused) {
      added.push_back({.id = id, .content = std::string(entry.text), .special = special});
    }
  }
  for (const std::string_view merge : parts.merges) {
    vocabulary.add_merge(merge);
  }
  vocabulary.finish_merges();
  if (added.size() > kMaxAddedTokens) {
    throw FormatError(fmt::format("{}: there are {} control tokens, and at most {} are supported", source,
                                  grouped(static_cast<std::int64_t>(added.size())), grouped(kMaxAddedTokens)));
  }
  for (const AddedToken& token : added) {
    vocabulary.add_token(token);
  }
  table.model.tokens.index();
}

bool has_kind(const std::vector<VocabularyEntry>& entries, TokenKind kind) {
  return std::any_of(entries.begin(), entries.end(), [kind](const VocabularyEntry& one) { return one.kind == kind; });
}

// Files of 2023 may lack the kinds: then bytes go by their names, and the unknown token by its id.
void name_kinds(const TokenizerParts& parts, std::vector<VocabularyEntry>& entries) {
  if (!has_kind(entries, TokenKind::kUnknown)) {
    const auto unknown = static_cast<std::size_t>(parts.unknown.value_or(0));
    if (unknown < entries.size()) {
      entries[unknown].kind = TokenKind::kUnknown;
    }
  }
  if (!has_kind(entries, TokenKind::kByte)) {
    for (VocabularyEntry& entry : entries) {
      if (entry.kind == TokenKind::kNormal && byte_named_by(entry.text)) {
        entry.kind = TokenKind::kByte;
      }
    }
  }
}

void read_pieces_kind(const TokenizerParts& parts, const std::string& source, Tokenizer::Table& table) {
  SentencePieceSpec spec;
  spec.kind = SentencePieceSpec::Kind::kBpe;
  spec.pieces = parts.vocabulary;
  spec.add_dummy_prefix = parts.add_space_prefix.value_or(true);
  spec.remove_extra_whitespaces = false;
  name_kinds(parts, spec.pieces);
  spec.byte_fallback = has_kind(spec.pieces, TokenKind::kByte);
  fill_from_pieces(spec, source, /*shows_special=*/true, {}, table);
  table.prefixes_every_stretch = true;
}

std::string fingerprint_of(const TokenizerParts& parts) {
  Fingerprint print;
  print.add(fmt::format("{} {}", parts.model, parts.pre));
  for (const VocabularyEntry& entry : parts.vocabulary) {
    print.add(fmt::format("\n{} {} {} ", entry.text.size(), std::bit_cast<std::uint32_t>(entry.score),
                          static_cast<int>(entry.kind)));
    print.add(entry.text);
  }
  for (const std::string_view merge : parts.merges) {
    print.add(fmt::format("\n{} ", merge.size()));
    print.add(merge);
  }
  for (const auto& id : {parts.bos, parts.eos, parts.pad, parts.unknown}) {
    print.add(fmt::format("\n{}", id.value_or(-1)));
  }
  for (const auto& flag : {parts.add_bos, parts.add_eos, parts.add_space_prefix}) {
    print.add(!flag ? "?" : *flag ? "1" : "0");
  }
  return print.digest();
}

}  // namespace

Tokenizer Tokenizer::assemble(const TokenizerParts& parts, const std::string& source) {
  const auto table = std::make_shared<Table>();
  check_texts(parts, source);
  bool adds_bos = true;
  if (parts.model == "gpt2") {
    PreTokenizer pre = pre_tokenizer(parts.pre, source);
    adds_bos = pre.add_bos;
    read_bytes_kind(parts, source, *table, std::move(pre));
  } else if (parts.model == "llama") {
    checked(parts.unknown, "unknown", parts, source);
    read_pieces_kind(parts, source, *table);
  } else {
    throw UnsupportedError(
        fmt::format("{}: a tokenizer of the kind \"{}\" is not supported", source, printable(parts.model, 60)));
  }
  table->bos = checked(parts.bos, "BOS", parts, source);
  table->eos = checked(parts.eos, "EOS", parts, source);
  table->pad = checked(parts.pad, "padding", parts, source);
  table->add_bos = parts.add_bos.value_or(true);
  table->add_eos = parts.add_eos.value_or(true);
  if (table->bos && parts.add_bos.value_or(adds_bos)) {
    table->prefix.push_back(*table->bos);
  }
  if (table->eos && parts.add_eos.value_or(false)) {
    table->suffix.push_back(*table->eos);
  }
  table->fingerprint = fingerprint_of(parts);
  table->finish(source);
  return Tokenizer(table);
}

}  // namespace caravan::tokenizer
