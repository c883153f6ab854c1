#include "caravan/tokenizer/named_tokens.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "caravan/base/text.h"
#include "caravan/tokenizer/json_source.h"
#include "caravan/tokenizer/vocabulary.h"

namespace caravan::tokenizer {

namespace {

// In the order of transformers' SPECIAL_TOKENS_ATTRIBUTES.
constexpr const char* kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};

class Reader : public JsonSource {
 public:
  explicit Reader(const std::string& source) : JsonSource(source) {}

  // A text, or an object with "content" and flags.
  NamedToken token(const Json& json, const std::string& name, bool special) const {
    NamedToken result{.token = {}, .where = source() + ": " + name};
    result.token.special = special;
    if (json.is_string()) {
      result.token.content = json.get<std::string>();
    } else {
      result.token.content = text(json, "content", name);
      result.token.single_word = flag(json, "single_word", false);
      result.token.lstrip = flag(json, "lstrip", false);
      result.token.rstrip = flag(json, "rstrip", false);
      result.token.special = special || flag(json, "special", false);
      result.token.normalized = flag(json, "normalized", !result.token.special);
    }
    require(result.token.content.size() <= kMaxAddedTokenBytes,
            fmt::format("{} is longer than {} bytes", name, kMaxAddedTokenBytes));
    return result;
  }

  // Every "..._token" of the file, and what stands in its lists of further ones.
  void special(const Json& json, std::map<std::string, NamedToken>& named, std::vector<NamedToken>& further) const {
    require(json.is_object(), "the file is not a JSON object");
    for (const auto& [name, value] : json.items()) {
      if (!name.ends_with("_token") || (!value.is_string() && !value.is_object())) {
        continue;
      }
      if (NamedToken one = token(value, name, /*special=*/true); !one.token.content.empty()) {
        named.insert_or_assign(name, std::move(one));
      }
    }
    for (const char* name : {"additional_special_tokens", "extra_special_tokens"}) {
      const Json& list = member(json, name);
      require(list.is_null() || list.is_array() || list.is_object(), fmt::format("\"{}\" is not a list", name));
      for (const auto& [key, value] : list.items()) {
        further.push_back(token(value, list.is_object() ? key : name, /*special=*/true));
      }
    }
    require(named.size() + further.size() <= kMaxAddedTokens, "there are too many special tokens");
  }

  std::vector<NamedToken> added_tokens_decoder(const Json& json) const {
    std::vector<NamedToken> result;
    require(json.is_object(), "\"added_tokens_decoder\" is not an object");
    require(json.size() <= kMaxAddedTokens, "there are too many added tokens");
    for (const auto& [key, value] : json.items()) {
      const bool digits = !key.empty() && key.size() <= 8 &&
                          std::all_of(key.begin(), key.end(), [](char one) { return one >= '0' && one <= '9'; });
      require(digits && std::stol(key) <= kMaxId,
              fmt::format("\"added_tokens_decoder\" has {}, which is no id from 0 to {}", shown_token(key),
                          grouped(kMaxId)));
      result.push_back(token(value, fmt::format("added token {}", key), /*special=*/false));
      result.back().token.id = static_cast<std::int32_t>(std::stol(key));
    }
    return result;
  }

  std::vector<NamedToken> added_tokens(const Json& json, const std::vector<NamedToken>& special) const {
    std::vector<NamedToken> result;
    require(json.is_object(), "the file is not a JSON object");
    require(json.size() <= kMaxAddedTokens, "there are too many added tokens");
    for (const auto& [content, value] : json.items()) {
      const bool is_special = std::any_of(special.begin(), special.end(), [&name = content](const NamedToken& one) {
        return one.token.content == name;
      });
      result.push_back(token(Json(content), "added token " + shown_token(content), is_special));
      result.back().token.normalized = !is_special;
      result.back().token.id = id(value, "the added token " + shown_token(content));
    }
    return result;
  }
};

std::optional<NamedToken> named(const std::map<std::string, NamedToken>& all, const char* name) {
  const auto found = all.find(name);
  return found == all.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace

NamedTokens read_named_tokens(const FilesBeside& files, const std::string& folder) {
  NamedTokens result;
  result.present = !files.config.empty() || !files.special_tokens_map.empty() || !files.added_tokens.empty();
  std::map<std::string, NamedToken> all;
  std::vector<NamedToken> further;
  const Reader config(folder + "tokenizer_config.json");
  bool numbered = false;
  if (!files.config.empty()) {
    const Json json = parse_json(files.config, config.source());
    config.special(json, all, further);
    numbered = Reader::find(json, "added_tokens_decoder") != nullptr;
    if (numbered) {
      result.numbered = config.added_tokens_decoder(json.at("added_tokens_decoder"));
    }
    if (Reader::find(json, "add_bos_token") != nullptr) {
      result.add_bos = config.flag(json, "add_bos_token", false);
    }
    if (Reader::find(json, "add_eos_token") != nullptr) {
      result.add_eos = config.flag(json, "add_eos_token", false);
    }
    result.legacy = config.flag(json, "legacy", false);
    result.add_prefix_space = config.flag(json, "add_prefix_space", true);
  }
  if (!numbered && !files.special_tokens_map.empty()) {
    const Reader map(folder + "special_tokens_map.json");
    map.special(parse_json(files.special_tokens_map, map.source()), all, further);
  }
  result.bos = named(all, "bos_token");
  result.eos = named(all, "eos_token");
  result.pad = named(all, "pad_token");
  for (const char* name : kNames) {
    if (const auto found = all.extract(name)) {
      result.special.push_back(found.mapped());
    }
  }
  for (const auto& [name, token] : all) {
    result.special.push_back(token);
  }
  result.special.insert(result.special.end(), further.begin(), further.end());
  if (!numbered && !files.added_tokens.empty()) {
    const Reader added(folder + "added_tokens.json");
    result.numbered = added.added_tokens(parse_json(files.added_tokens, added.source()), result.special);
  }
  std::stable_sort(result.numbered.begin(), result.numbered.end(),
                   [](const NamedToken& a, const NamedToken& b) { return a.token.id < b.token.id; });
  return result;
}

}  // namespace caravan::tokenizer
