#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <optional>
#include <set>
#include <system_error>

#include "caravan/base/directory.h"
#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/data/byte_source.h"
#include "caravan/data/documents.h"
#include "caravan/data/jsonl.h"
#include "caravan/data/line_reader.h"
#include "caravan/data/shard.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kHeadBytes = std::size_t{64} << 10;

// What a file is; a JSONL file without a line may be either of the two.
struct FileKind {
  DatasetKind kind = DatasetKind::kText;
  bool any_jsonl = false;
};

std::string extension_of(const fs::path& path) {
  std::string extension = unpacked_name(path).extension().string();
  std::ranges::transform(extension, extension.begin(), [](unsigned char c) { return std::tolower(c); });
  return extension;
}

// Eight bytes of a length whose upper half is zero, then the JSON object.
bool looks_like_safetensors(std::string_view head) {
  return head.size() > 8 && head.substr(4, 4) == std::string_view("\0\0\0\0", 4) && head[8] == '{';
}

bool looks_like_text(std::string_view head) {
  if (head.find('\0') != std::string_view::npos) {  // no text has zero bytes; archives and UTF-16 do
    return false;
  }
  const std::optional<std::size_t> fault = tokenizer::first_invalid_byte(head);
  return !fault || (head.size() == kHeadBytes && head.size() - *fault < 4);  // a character across the end
}

FileKind kind_of_jsonl(const fs::path& path) {
  LineReader reader(path);
  for (std::string line; reader.next(line);) {
    if (is_blank(line)) {
      continue;
    }
    const std::optional<DatasetKind> kind = jsonl_kind(line, reader.place());
    if (!kind) {
      throw InputError(fmt::format("{}: expected a JSON object with the field \"text\" or \"ids\"", reader.place()));
    }
    return {*kind};
  }
  return {DatasetKind::kJsonlText, /*any_jsonl=*/true};
}

// JSONL under another name.
std::optional<FileKind> kind_of_first_line(const fs::path& path, std::string_view head) {
  const std::size_t first = head.find_first_not_of(" \t\r\n\v\f");
  if (first == std::string_view::npos || head[first] != '{') {
    return std::nullopt;
  }
  try {
    return kind_of_jsonl(path);
  } catch (const InputError&) {  // JSON without the fields: text
  } catch (const FormatError&) {
  }
  return std::nullopt;
}

FileKind kind_of_file(const fs::path& path) {
  const std::string extension = extension_of(path);
  if (extension == ".jsonl" || extension == ".ndjson" || extension == ".json") {
    return kind_of_jsonl(path);
  }
  const std::string head = read_head(path, kHeadBytes);
  if (extension == ".safetensors" || looks_like_safetensors(head)) {
    require_shard(path);
    return {DatasetKind::kShards};
  }
  if (const std::optional<FileKind> kind = kind_of_first_line(path, head)) {
    return *kind;
  }
  if (extension != ".txt" && extension != ".md" && !looks_like_text(head)) {
    throw InputError(
        fmt::format("{}: is neither text in UTF-8 nor JSONL nor token shards (each also as .gz or .zst "
                    "but the last); convert it or take it out of the data set",
                    path.string()));
  }
  return {DatasetKind::kText};
}

[[noreturn]] void throw_system(const fs::path& path, const std::error_code& error) {
  throw FileError(fmt::format("{}: cannot be read as a data set: {}", path.string(), error.message()));
}

void add_files_below(const fs::path& directory, std::vector<fs::path>& files) {
  for (const std::string& name : names_in(directory)) {
    if (name.starts_with('.')) {
      continue;
    }
    const fs::path path = directory / name;
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (error) {
      throw_system(path, error);
    }
    if (!fs::is_directory(status)) {
      files.push_back(path);
    } else if (!is_real_directory(path)) {
      throw InputError(
          fmt::format("{}: is a link to a directory, which is not followed, as it may lead in circles; name "
                      "the directory itself as another data set",
                      path.string()));
    } else {
      add_files_below(path, files);
    }
  }
}

std::vector<fs::path> files_below(const fs::path& directory) {
  std::vector<fs::path> files;
  add_files_below(directory, files);
  std::ranges::sort(files);
  return files;
}

}  // namespace

const char* to_string(DatasetKind kind) {
  switch (kind) {
    case DatasetKind::kText:
      return "text";
    case DatasetKind::kJsonlText:
      return "jsonl";
    case DatasetKind::kJsonlIds:
      return "jsonl of ids";
    case DatasetKind::kShards:
      return "token shards";
  }
  return "unknown";
}

Recognised recognise(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error) {
    throw_system(path, error);
  }
  if (!fs::is_directory(status)) {
    return {kind_of_file(path).kind, {path}};
  }
  Recognised result;
  result.files = files_below(path);
  if (result.files.empty()) {
    throw InputError(fmt::format("{}: the directory holds no files (hidden ones do not count)", path.string()));
  }
  const fs::path* first = nullptr;  // the first file whose kind is certain
  for (const fs::path& file : result.files) {
    const FileKind found = kind_of_file(file);
    const bool agrees =
        first == nullptr || found.kind == result.kind || (found.any_jsonl && result.kind == DatasetKind::kJsonlIds);
    if (!agrees) {
      throw InputError(
          fmt::format("{}: the directory mixes kinds: \"{}\" is {}, \"{}\" is {}; give each a directory of "
                      "its own",
                      path.string(), first->string(), to_string(result.kind), file.string(), to_string(found.kind)));
    }
    if (first == nullptr) {
      result.kind = found.kind;
      first = found.any_jsonl ? nullptr : &file;
    }
  }
  return result;
}

}  // namespace caravan::data
