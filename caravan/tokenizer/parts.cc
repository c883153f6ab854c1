#include "caravan/tokenizer/parts.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/fingerprint.h"
#include "caravan/tokenizer/parts_reading.h"
#include "caravan/tokenizer/readers.h"
#include "caravan/tokenizer/utf8.h"
#include "caravan/tokenizer/vocabulary.h"

namespace caravan::tokenizer {

namespace {

constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<SplitStep> steps_of(const PreTokenizerForm& form, const std::string& source) {
  std::vector<SplitStep> steps;
  if (form.single_digits) {
    steps.push_back({.kind = SplitStep::Kind::kDigits, .digits = 1, .pattern = {}, .mark = {}});
  }
  if (form.patterns.empty()) {
    steps.push_back(isolating_step(kGpt2Pattern, source));
  }
  for (const std::string_view pattern : form.patterns) {
    steps.push_back(isolating_step(pattern, source));
  }
  return steps;
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

void read_bytes_kind(const TokenizerParts& parts, const std::string& source, const PreTokenizerForm& form,
                     Tokenizer::Table& table) {
  table.steps = steps_of(form, source);
  table.model.ignore_merges = form.ignore_merges;
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

void read_pieces_kind(const TokenizerParts& parts, const std::string& source, Tokenizer::Table& table) {
  SentencePieceSpec spec;
  spec.kind = SentencePieceSpec::Kind::kBpe;
  spec.pieces = pieces_of(parts);
  spec.add_dummy_prefix = parts.add_space_prefix.value_or(true);
  spec.remove_extra_whitespaces = false;
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

const std::vector<PreTokenizerForm>& pre_tokenizer_forms() {
  static const std::vector<PreTokenizerForm> kForms = {
      {.names = {"gpt-2", "gpt2", "phi-2", "olmo", "mpt", "jais"}, .patterns = {}},
      {.names = {"smollm", "starcoder", "refact", "command-r", "codeshell"}, .single_digits = true, .patterns = {}},
      {.names = {"llama-bpe", "llama3", "llama-v3", "pixtral"},
       .patterns = {kLlama3Pattern},
       .ignore_merges = true,
       .adds_bos = true},
      {.names = {"dbrx", "smaug-bpe"}, .patterns = {kLlama3Pattern}},
      {.names = {"qwen2", "stablelm2", "deepseek-r1-qwen", "megrez"}, .patterns = {kQwen2Pattern}},
      {.names = {"llama4", "gpt-4o"}, .patterns = {kO200kPattern}, .ignore_merges = true},
      {.names = {"tekken"}, .patterns = {kTekkenPattern}, .ignore_merges = true, .adds_bos = true},
      {.names = {"default", ""}, .patterns = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Pattern, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
  };
  return kForms;
}

const PreTokenizerForm& form_named(const std::string& name, const std::string& source) {
  for (const PreTokenizerForm& form : pre_tokenizer_forms()) {
    if (std::find(form.names.begin(), form.names.end(), name) != form.names.end()) {
      return form;
    }
  }
  throw UnsupportedError(fmt::format("{}: the pre-tokenizer \"{}\" is not supported", source, printable(name, 60)));
}

bool has_kind(const std::vector<VocabularyEntry>& entries, TokenKind kind) {
  return std::any_of(entries.begin(), entries.end(), [kind](const VocabularyEntry& one) { return one.kind == kind; });
}

std::vector<VocabularyEntry> pieces_of(const TokenizerParts& parts) {
  std::vector<VocabularyEntry> entries = parts.vocabulary;
  const auto unknown = static_cast<std::size_t>(parts.unknown.value_or(0));
  if (!has_kind(entries, TokenKind::kUnknown) && unknown < entries.size()) {
    entries[unknown].kind = TokenKind::kUnknown;
  }
  if (!has_kind(entries, TokenKind::kByte)) {
    for (VocabularyEntry& entry : entries) {
      if (entry.kind == TokenKind::kNormal && byte_named_by(entry.text)) {
        entry.kind = TokenKind::kByte;
      }
    }
  }
  return entries;
}

Tokenizer Tokenizer::assemble(const TokenizerParts& parts, const std::string& source) {
  const auto table = std::make_shared<Table>();
  check_texts(parts, source);
  bool adds_bos = true;
  if (parts.model == "gpt2") {
    const PreTokenizerForm& form = form_named(parts.pre, source);
    adds_bos = form.adds_bos;
    read_bytes_kind(parts, source, form, *table);
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
