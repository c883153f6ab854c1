// A tokenizer.json from parts: the same tokenizer in the words of Hugging Face's `tokenizers`.
#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/base/text.h"
#include "caravan/tokenizer/bpe.h"
#include "caravan/tokenizer/parts.h"
#include "caravan/tokenizer/parts_reading.h"
#include "caravan/tokenizer/tokenizer.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

using Entries = std::vector<VocabularyEntry>;

bool is_special(TokenKind kind) {
  return kind == TokenKind::kControl || kind == TokenKind::kUnknown;
}

bool is_added(TokenKind kind) {
  return is_special(kind) || kind == TokenKind::kUserDefined;
}

// Behind the others without a search for the key: an ordered object would walk them all.
void put_last(Json& object, std::string_view key, Json value) {
  static_cast<Json::object_t::Container&>(object.get_ref<Json::object_t&>()).emplace_back(key, std::move(value));
}

Json byte_level(bool prefix, bool trims, bool pattern) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", trims}, {"use_regex", pattern}};
}

Json sequence(const char* list, Json steps) {
  return steps.size() == 1 ? Json(steps[0]) : Json{{"type", "Sequence"}, {list, std::move(steps)}};
}

Json replace(std::string_view from, std::string_view to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

// `normalized`: user-defined tokens that hold U+2581 are looked for where it stands for a space.
Json added_tokens_json(const Entries& entries, bool normalized = false) {
  Json added = Json::array();
  for (std::size_t id = 0; id < entries.size(); ++id) {
    if (is_added(entries[id].kind) && !entries[id].text.empty()) {
      added.push_back({{"id", id},
                       {"content", entries[id].text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", normalized && entries[id].kind == TokenKind::kUserDefined &&
                                          entries[id].text.find(kSpaceSymbol) != std::string_view::npos},
                       {"special", is_special(entries[id].kind)}});
    }
  }
  return added;
}

// Nothing where the tokenizer adds no token of its own.
Json template_json(const TokenizerParts& parts, bool adds_bos) {
  const bool before = parts.bos && parts.add_bos.value_or(adds_bos);
  const bool behind = parts.eos && parts.add_eos.value_or(false);
  if (!before && !behind) {
    return nullptr;
  }
  Json single = Json::array();
  Json pair = Json::array();
  Json special = Json::object();
  const auto add = [&](std::int32_t id, int type) {
    const std::string token(parts.vocabulary[static_cast<std::size_t>(id)].text);
    special[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
    return Json{{"SpecialToken", {{"id", token}, {"type_id", type}}}};
  };
  for (const auto& [name, type] : {std::pair("A", 0), std::pair("B", 1)}) {
    Json one = Json::array();
    if (before) {
      one.push_back(add(*parts.bos, type));
    }
    one.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    if (behind) {
      one.push_back(add(*parts.eos, type));
    }
    pair.insert(pair.end(), one.begin(), one.end());
    if (type == 0) {
      single = std::move(one);
    }
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

Json file_json(const Entries& entries) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens_json(entries)},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false}}}};
}

// --- "gpt2"

// How many of the first tokens the vocabulary holds.  Added tokens behind all others stand beside it, as in the files of
// Llama 3; where ids between them are free all are in it, since ids of tokens beside it are counted from its end.
std::size_t tokens_inside(const Entries& entries) {
  const auto is_free = [](const VocabularyEntry& one) { return one.kind == TokenKind::kUnused || one.text.empty(); };
  std::size_t inside = entries.size();
  while (inside > 0 && (is_added(entries[inside - 1].kind) || is_free(entries[inside - 1]))) {
    --inside;
  }
  return std::any_of(entries.begin(), entries.end(), is_free) ? entries.size() : inside;
}

Json pre_tokenizer_json(const PreTokenizerForm& form) {
  Json steps = Json::array();
  if (form.single_digits) {
    steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  }
  for (const std::string_view pattern : form.patterns) {
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back(byte_level(/*prefix=*/false, /*trims=*/true, /*pattern=*/form.patterns.empty()));
  return sequence("pretokenizers", std::move(steps));
}

Json byte_level_json(const TokenizerParts& parts, const PreTokenizerForm& form) {
  Json json = file_json(parts.vocabulary);
  json["pre_tokenizer"] = pre_tokenizer_json(form);
  Json processors = Json::array({byte_level(true, false, true)});
  if (Json around = template_json(parts, form.adds_bos); !around.is_null()) {
    processors.push_back(std::move(around));
  }
  json["post_processor"] = sequence("processors", std::move(processors));
  json["decoder"] = byte_level(true, true, true);
  Json vocab = Json::object();
  const std::size_t inside = tokens_inside(parts.vocabulary);
  for (std::size_t id = 0; id < inside; ++id) {
    const VocabularyEntry& entry = parts.vocabulary[id];
    if (entry.kind != TokenKind::kUnused && !entry.text.empty()) {
      put_last(vocab, entry.text, id);
    }
  }
  Json& model = json["model"];
  model["ignore_merges"] = form.ignore_merges;
  model["vocab"] = std::move(vocab);
  model["merges"] = parts.merges;
  return json;
}

// --- "llama"

struct Merge {
  float score;
  std::string_view left;
  std::string_view right;
};

// The merges that SentencePiece's scores stand for: every piece taken apart in every way that leaves two pieces, the
// highest score first, and of equal ones the longer parts, as transformers orders them.
Json merges_of(const Entries& entries, const std::string& source) {
  std::unordered_set<std::string_view> normal;
  for (const VocabularyEntry& entry : entries) {
    if (entry.kind == TokenKind::kNormal) {
      normal.insert(entry.text);
    }
  }
  std::vector<Merge> merges;
  for (const VocabularyEntry& entry : entries) {
    const std::string_view text = entry.text;
    if (entry.kind != TokenKind::kNormal && entry.kind != TokenKind::kUnused) {
      continue;
    }
    for (std::size_t at = code_point_at(text, 0).length; at < text.size(); at += code_point_at(text, at).length) {
      if (!normal.contains(text.substr(0, at)) || !normal.contains(text.substr(at))) {
        continue;
      }
      if (entry.kind == TokenKind::kUnused) {
        throw UnsupportedError(
            fmt::format("{}: \"{}\" is an unused piece that merges make, which a tokenizer.json has no word for",
                        source, printable(text, 60)));
      }
      merges.push_back({entry.score, text.substr(0, at), text.substr(at)});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tuple(-a.score, b.left.size(), b.right.size()) < std::tuple(-b.score, a.left.size(), a.right.size());
  });
  Json result = Json::array();
  for (const Merge& one : merges) {
    result.push_back({one.left, one.right});
  }
  return result;
}

// Characters that only longer pieces have: SentencePiece merges them all the same, a list of merges cannot.
void check_characters(const Entries& entries, const std::string& source) {
  std::unordered_map<std::string_view, bool> seen;  // characters: whether they are pieces
  for (const VocabularyEntry& entry : entries) {
    const std::string_view text = entry.text;
    if (entry.kind != TokenKind::kNormal) {
      continue;
    }
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t length = code_point_at(text, at).length;
      bool& is_piece = seen[text.substr(at, length)];
      is_piece = is_piece || length == text.size();
      at += length;
    }
  }
  for (const auto& [character, is_piece] : seen) {
    if (!is_piece) {
      throw UnsupportedError(
          fmt::format("{}: pieces hold the character \"{}\", which is no piece itself: a "
                      "tokenizer.json cannot merge it",
                      source, printable(character, 60)));
    }
  }
}

// With a space put before every text `tokenizers` would put one before these as well, and never find them.
void check_user_defined(const Entries& entries, const std::string& source) {
  for (const VocabularyEntry& entry : entries) {
    if (entry.kind == TokenKind::kUserDefined && entry.text.find(kSpaceSymbol) != std::string_view::npos) {
      throw UnsupportedError(
          fmt::format("{}: the user-defined token \"{}\" holds a space, which a tokenizer.json with a "
                      "space before every text cannot look for",
                      source, printable(entry.text, 60)));
    }
  }
}

Json pieces_json(const TokenizerParts& parts, const std::string& source) {
  const Entries entries = pieces_of(parts);
  check_characters(entries, source);
  const bool prefixed = parts.add_space_prefix.value_or(true);
  if (prefixed) {
    check_user_defined(entries, source);
  }
  Json json = file_json(entries);
  json["added_tokens"] = added_tokens_json(entries, /*normalized=*/true);
  Json normalizers = Json::array();
  Json decoders = Json::array({replace(kSpaceSymbol, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (prefixed) {
    normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpaceSymbol}});
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  normalizers.push_back(replace(" ", kSpaceSymbol));
  json["normalizer"] = sequence("normalizers", std::move(normalizers));
  json["post_processor"] = template_json(parts, /*adds_bos=*/true);
  json["decoder"] = sequence("decoders", std::move(decoders));
  Json& model = json["model"];
  Json vocab = Json::object();
  for (std::size_t id = 0; id < entries.size(); ++id) {
    if (entries[id].kind != TokenKind::kUnused) {
      put_last(vocab, entries[id].text, id);
    }
    if (entries[id].kind == TokenKind::kUnknown) {
      model["unk_token"] = entries[id].text;
    }
  }
  model["fuse_unk"] = true;
  model["byte_fallback"] = has_kind(entries, TokenKind::kByte);
  model["vocab"] = std::move(vocab);
  model["merges"] = merges_of(entries, source);
  return json;
}

}  // namespace

std::string to_tokenizer_json(const TokenizerParts& parts, const std::string& source) {
  Tokenizer::assemble(parts, source);  // what contradicts itself stops here
  const Json json =
      parts.model == "llama" ? pieces_json(parts, source) : byte_level_json(parts, form_named(parts.pre, source));
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace caravan::tokenizer
