#include "caravan/model_io/gguf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "caravan/base/error.h"

namespace caravan::model_io {

namespace {

using checkpoint::GgufEntry;
using checkpoint::GgufFile;
using checkpoint::GgufMetadata;

constexpr const char* kHfJson = "tokenizer.huggingface.json";
constexpr const char* kOwnConfig = "caravan.tokenizer_config";
constexpr const char* kChatTemplate = "tokenizer.chat_template";

std::string ggml(const char* name) {
  return std::string("tokenizer.ggml.") + name;
}

std::vector<std::string> texts(const GgufMetadata& metadata, const std::string& key) {
  std::vector<std::string> result;
  for (const std::string_view one : metadata.texts(key).value_or(std::vector<std::string_view>())) {
    result.emplace_back(one);
  }
  return result;
}

std::vector<TokenKind> kinds(const GgufMetadata& metadata, const std::string& source) {
  std::vector<TokenKind> result;
  for (const std::int64_t one : metadata.integers(ggml("token_type")).value_or(std::vector<std::int64_t>())) {
    // 0 is llama.cpp's "undefined", which it treats as normal.
    if (one < 0 || one > static_cast<std::int64_t>(TokenKind::kByte)) {
      throw FormatError(
          fmt::format("{}: \"{}\" holds {}; kinds of tokens are 0 to 6", source, ggml("token_type"), one));
    }
    result.push_back(one == 0 ? TokenKind::kNormal : static_cast<TokenKind>(one));
  }
  return result;
}

}  // namespace

std::optional<GgufTokenizer> read_gguf_tokenizer(const GgufFile& file) {
  const GgufMetadata& metadata = file.metadata();
  const std::string source = file.path().string();
  const auto model = metadata.text(ggml("model"));
  if (!model || *model == "no_vocab" || *model == "none") {
    return std::nullopt;
  }
  GgufTokenizer result;
  result.model = *model;
  result.pre = metadata.text(ggml("pre")).value_or("");
  result.tokens = texts(metadata, ggml("tokens"));
  for (const double one : metadata.numbers(ggml("scores")).value_or(std::vector<double>())) {
    result.scores.push_back(static_cast<float>(one));
  }
  result.kinds = kinds(metadata, source);
  result.merges = texts(metadata, ggml("merges"));
  const auto same_length = [&](const char* name, std::size_t length) {
    if (length != 0 && length != result.tokens.size()) {
      throw FormatError(fmt::format("{}: \"{}\" has {} elements, but there are {} tokens", source, ggml(name), length,
                                    result.tokens.size()));
    }
  };
  same_length("scores", result.scores.size());
  same_length("token_type", result.kinds.size());
  const auto id = [&](const char* name) -> std::optional<std::int64_t> {
    const auto found = metadata.integer(ggml(name));
    const bool inside = found && *found >= 0 && *found < static_cast<std::int64_t>(result.tokens.size());
    return inside ? found : std::nullopt;
  };
  result.bos = id("bos_token_id");
  result.eos = id("eos_token_id");
  result.eot = id("eot_token_id");
  result.unk = id("unknown_token_id");
  result.pad = id("padding_token_id");
  result.add_bos = metadata.boolean(ggml("add_bos_token"));
  result.add_eos = metadata.boolean(ggml("add_eos_token"));
  result.add_space_prefix = metadata.boolean(ggml("add_space_prefix"));
  result.chat_template = metadata.text(kChatTemplate);
  result.tokenizer_json = metadata.text(kHfJson).value_or("");
  result.tokenizer_config = metadata.text(kOwnConfig).value_or("");
  return result;
}

tokenizer::TokenizerParts parts_of(const GgufTokenizer& tokenizer) {
  tokenizer::TokenizerParts parts;
  parts.model = tokenizer.model;
  parts.pre = tokenizer.pre;
  parts.vocabulary.resize(tokenizer.tokens.size());
  for (std::size_t i = 0; i < tokenizer.tokens.size(); ++i) {
    tokenizer::VocabularyEntry& entry = parts.vocabulary[i];
    entry.text = tokenizer.tokens[i];
    entry.score = tokenizer.scores.empty() ? 0.0F : tokenizer.scores[i];
    entry.kind = tokenizer.kinds.empty() ? TokenKind::kNormal : tokenizer.kinds[i];
  }
  parts.merges.assign(tokenizer.merges.begin(), tokenizer.merges.end());
  const auto id = [](const std::optional<std::int64_t>& found) {
    return found ? std::optional(static_cast<std::int32_t>(*found)) : std::nullopt;
  };
  parts.bos = id(tokenizer.bos);
  parts.eos = id(tokenizer.eos);
  parts.pad = id(tokenizer.pad);
  parts.unknown = id(tokenizer.unk);
  parts.add_bos = tokenizer.add_bos;
  parts.add_eos = tokenizer.add_eos;
  parts.add_space_prefix = tokenizer.add_space_prefix;
  return parts;
}

std::vector<GgufEntry> format_gguf_tokenizer(const GgufTokenizer& tokenizer) {
  std::vector<GgufEntry> out;
  const auto add = [&](const std::string& key, const checkpoint::GgufWriteValue& value) {
    out.push_back({key, value});
  };
  add(ggml("model"), tokenizer.model);
  if (!tokenizer.pre.empty()) {
    add(ggml("pre"), tokenizer.pre);
  }
  add(ggml("tokens"), tokenizer.tokens);
  if (!tokenizer.scores.empty()) {
    add(ggml("scores"), tokenizer.scores);
  }
  if (!tokenizer.kinds.empty()) {
    std::vector<std::int32_t> numbers;
    for (const TokenKind one : tokenizer.kinds) {
      numbers.push_back(static_cast<std::int32_t>(one));
    }
    add(ggml("token_type"), numbers);
  }
  if (!tokenizer.merges.empty()) {
    add(ggml("merges"), tokenizer.merges);
  }
  const auto add_id = [&](const char* name, std::optional<std::int64_t> id) {
    if (id) {
      add(ggml(name), static_cast<std::uint32_t>(*id));
    }
  };
  add_id("bos_token_id", tokenizer.bos);
  add_id("eos_token_id", tokenizer.eos);
  add_id("eot_token_id", tokenizer.eot);
  add_id("unknown_token_id", tokenizer.unk);
  add_id("padding_token_id", tokenizer.pad);
  const auto add_flag = [&](const char* name, std::optional<bool> flag) {
    if (flag) {
      add(ggml(name), *flag);
    }
  };
  add_flag("add_bos_token", tokenizer.add_bos);
  add_flag("add_eos_token", tokenizer.add_eos);
  add_flag("add_space_prefix", tokenizer.add_space_prefix);
  if (tokenizer.chat_template) {
    add(kChatTemplate, *tokenizer.chat_template);
  }
  if (!tokenizer.tokenizer_json.empty()) {
    add(kHfJson, tokenizer.tokenizer_json);
  }
  if (!tokenizer.tokenizer_config.empty()) {
    add(kOwnConfig, tokenizer.tokenizer_config);
  }
  return out;
}

}  // namespace caravan::model_io
