// Finds a tokenizer's files and tells its kind by the content.
#include <fmt/core.h>

#include <system_error>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/tokenizer/fingerprint.h"
#include "caravan/tokenizer/named_tokens.h"
#include "caravan/tokenizer/readers.h"
#include "caravan/tokenizer/table.h"

namespace caravan::tokenizer {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxTokenizerBytes = std::int64_t{64} << 20;
constexpr std::int64_t kMaxBesideBytes = std::int64_t{16} << 20;
// Of a SentencePiece model: the largest in use have 5 MB.
constexpr std::size_t kMaxPiecesBytes = std::size_t{32} << 20;

std::string read_beside(const fs::path& file, const char* name) {
  std::error_code ignored;
  const fs::path path = file.parent_path() / name;
  return fs::exists(path, ignored) ? read_text_file(path, kMaxBesideBytes) : "";
}

// An object that has a key or none.  The first bytes of a SentencePiece model, 0x0A and the length of its first piece,
// may be a line end and a brace too; a key does not follow then.
bool looks_like_json(std::string_view content) {
  constexpr const char* kSpaces = " \t\r\n";
  const std::size_t brace = content.find_first_not_of(kSpaces);
  if (brace == std::string_view::npos || content[brace] != '{') {
    return false;
  }
  const std::size_t next = content.find_first_not_of(kSpaces, brace + 1);
  return brace == 0 || next == std::string_view::npos || content[next] == '"' || content[next] == '}';
}

// Files that are found where a tokenizer should be: say what they are.
void refuse_foreign(std::string_view content, const std::string& source) {
  if (content.starts_with("version https://git-lfs")) {
    throw FormatError(
        fmt::format("{}: the file is a pointer of Git LFS and not the tokenizer itself; fetch it with git "
                    "lfs pull",
                    source));
  }
  if (content.starts_with("GGUF")) {
    throw FormatError(
        fmt::format("{}: the file is a GGUF model, not a tokenizer; give it where a model is asked for", source));
  }
  if (content.empty()) {
    throw FormatError(fmt::format("{}: the file is empty", source));
  }
}

}  // namespace

std::optional<fs::path> tokenizer_file(const fs::path& directory) {
  std::error_code ignored;
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    if (fs::is_regular_file(directory / name, ignored)) {
      return directory / name;
    }
  }
  return std::nullopt;
}

TokenizerFiles read_tokenizer_files(const fs::path& path) {
  std::error_code ignored;
  TokenizerFiles files;
  files.path = path;
  if (fs::is_directory(path, ignored)) {
    const auto found = tokenizer_file(path);
    if (!found) {
      throw FileError(fmt::format("{}: the directory holds no tokenizer.json and no tokenizer.model", path.string()));
    }
    files.path = *found;
  }
  files.content = read_text_file(files.path, kMaxTokenizerBytes);
  files.config = read_beside(files.path, "tokenizer_config.json");
  files.special_tokens_map = read_beside(files.path, "special_tokens_map.json");
  files.added_tokens = read_beside(files.path, "added_tokens.json");
  return files;
}

TokenizerFileKind tokenizer_file_kind(std::string_view content, const std::string& source) {
  refuse_foreign(content, source);
  if (looks_like_json(content)) {
    return TokenizerFileKind::kJson;
  }
  if (looks_like_tiktoken(content)) {
    return TokenizerFileKind::kTiktoken;
  }
  if (content.size() > kMaxPiecesBytes) {
    throw FormatError(
        fmt::format("{}: the file is neither JSON nor tiktoken's, and larger than any SentencePiece model", source));
  }
  return TokenizerFileKind::kSentencePiece;
}

Tokenizer Tokenizer::load(const fs::path& path) {
  const TokenizerFiles files = read_tokenizer_files(path);
  return parse(files.content, files.path.string(), files.config, files.special_tokens_map, files.added_tokens);
}

Tokenizer Tokenizer::parse(std::string_view content, const std::string& source, std::string_view config,
                           std::string_view special_tokens_map, std::string_view added_tokens) {
  const TokenizerFileKind kind = tokenizer_file_kind(content, source);
  const std::string folder = (fs::path(source).parent_path() / "").string();
  const NamedTokens named = read_named_tokens(
      {.config = config, .special_tokens_map = special_tokens_map, .added_tokens = added_tokens}, folder);
  const auto table = std::make_shared<Table>();
  switch (kind) {
    case TokenizerFileKind::kJson:
      read_tokenizer_json(content, source, named, *table);
      break;
    case TokenizerFileKind::kTiktoken:
      read_tiktoken(content, source, named, *table);
      break;
    case TokenizerFileKind::kSentencePiece:
      read_sentencepiece_model(content, source, named, *table);
      break;
  }
  Fingerprint print;
  print.add(content);
  print.add(config);
  print.add(special_tokens_map);
  print.add(added_tokens);
  table->fingerprint = print.digest();
  table->finish(source);
  return Tokenizer(table);
}

}  // namespace caravan::tokenizer
