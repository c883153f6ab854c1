#include "caravan/model_io/model_tokenizer.h"

#include <fmt/format.h>

#include <map>
#include <system_error>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/checkpoint/gguf.h"
#include "caravan/model_io/gguf_tokenizer.h"

namespace caravan::model_io {

namespace {

namespace fs = std::filesystem;
using tokenizer::ChatTemplate;
using tokenizer::Tokenizer;

bool names_directory(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

std::optional<Tokenizer> tokenizer_of_gguf(const fs::path& path) {
  const std::optional<GgufTokenizer> found = read_gguf_tokenizer(checkpoint::GgufFile::open(path));
  if (!found) {
    return std::nullopt;
  }
  if (!found->tokenizer_json.empty()) {
    return Tokenizer::parse(found->tokenizer_json, path.string(), found->tokenizer_config);
  }
  return Tokenizer::assemble(parts_of(*found), path.string());
}

std::optional<ChatTemplate> template_of_gguf(const fs::path& path, const std::string& name) {
  const std::optional<GgufTokenizer> found = read_gguf_tokenizer(checkpoint::GgufFile::open(path));
  if (!found || !found->chat_template) {
    return std::nullopt;
  }
  if (!name.empty() && name != "default") {
    throw InputError(
        fmt::format("{}: has no chat template \"{}\"; there is \"default\"", path.string(), printable(name, 60)));
  }
  std::map<std::string, std::string> tokens;
  for (const auto& [of, id] : {std::pair("bos_token", found->bos),
                               {"eos_token", found->eos},
                               {"unk_token", found->unk},
                               {"pad_token", found->pad}}) {
    if (id) {
      tokens.emplace(of, found->tokens[static_cast<std::size_t>(*id)]);
    }
  }
  return ChatTemplate::parse(*found->chat_template, path.string() + ", tokenizer.chat_template", std::move(tokens));
}

}  // namespace

std::optional<Tokenizer> find_tokenizer(const fs::path& model) {
  if (checkpoint::is_gguf(model)) {
    return tokenizer_of_gguf(model);
  }
  return tokenizer::tokenizer_file(model) ? std::optional(Tokenizer::load(model)) : std::nullopt;
}

Tokenizer load_tokenizer(const fs::path& path) {
  if (!checkpoint::is_gguf(path)) {
    return Tokenizer::load(path);
  }
  std::optional<Tokenizer> found = tokenizer_of_gguf(path);
  if (!found) {
    throw FileError(fmt::format("{}: the GGUF file has no tokenizer", path.string()));
  }
  return *found;
}

std::optional<ChatTemplate> load_chat_template(const fs::path& path, const std::string& name, bool with_tools) {
  if (checkpoint::is_gguf(path)) {
    return template_of_gguf(path, name);
  }
  return ChatTemplate::load(names_directory(path) ? path : path.parent_path(), name, with_tools);
}

}  // namespace caravan::model_io
