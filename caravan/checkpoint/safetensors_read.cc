#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/checkpoint/safetensors_format.h"

namespace caravan::checkpoint {
namespace {

constexpr char kSingleName[] = "model.safetensors";
constexpr char kIndexName[] = "model.safetensors.index.json";

// Quoted names for a message: a few, then how many more.
class NameList {
 public:
  void add(const std::string& text) {
    constexpr std::size_t kShown = 5;
    if (count_ < kShown) {
      text_ += (count_ == 0 ? "" : ", ") + text;
    }
    ++count_;
    more_ = count_ > kShown ? fmt::format(" and {} more", count_ - kShown) : "";
  }
  bool empty() const { return count_ == 0; }
  std::string text() const { return text_ + more_; }

 private:
  std::size_t count_ = 0;
  std::string text_;
  std::string more_;
};

// Tensor to shard, as the index says it.
std::map<std::string, std::string> read_index(const std::filesystem::path& path) {
  const std::string source = path.string();
  const Json json = parse_json(read_text_file(path, kMaxHeaderBytes), source);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    throw FormatError(fmt::format("{}: the index must hold an object \"weight_map\" from tensor to file name", source));
  }
  std::map<std::string, std::string> weight_map;
  for (const auto& [tensor, shard] : json["weight_map"].items()) {
    if (const auto fault = name_fault(tensor)) {
      throw FormatError(fmt::format("{}: tensor {} {}", source, in_quotes(tensor), *fault));
    }
    if (!shard.is_string()) {
      throw FormatError(fmt::format("{}: tensor {} must map to a file name but maps to a value of type {}", source,
                                    in_quotes(tensor), shard.type_name()));
    }
    const std::string& name = shard.get_ref<const std::string&>();
    if (!is_plain_file_name(name)) {
      throw FormatError(
          fmt::format("{}: tensor {} maps to {}, which is no plain file name; shards lie in the index's own directory",
                      source, in_quotes(tensor), in_quotes(name)));
    }
    weight_map.emplace(tensor, name);
  }
  return weight_map;
}

// The shards that the index names, sorted, each once.
std::vector<std::string> shards_of(const std::map<std::string, std::string>& weight_map) {
  std::vector<std::string> shards;
  shards.reserve(weight_map.size());
  for (const auto& [tensor, shard] : weight_map) {
    shards.push_back(shard);
  }
  std::sort(shards.begin(), shards.end());
  shards.erase(std::unique(shards.begin(), shards.end()), shards.end());
  return shards;
}

void check_shards_exist(const std::filesystem::path& directory, const std::vector<std::string>& shards) {
  NameList missing;
  for (const std::string& shard : shards) {
    std::error_code ignored;
    if (!std::filesystem::exists(directory / shard, ignored)) {
      missing.add(in_quotes(shard));
    }
  }
  if (!missing.empty()) {
    throw FileError(fmt::format("{}: shards that {} names are missing: {}; fetch them again", directory.string(),
                                kIndexName, missing.text()));
  }
}

void check_agreement(const std::filesystem::path& index, const std::map<std::string, std::string>& weight_map,
                     const std::vector<SafetensorsFile>& files) {
  std::map<std::string, const SafetensorsFile*> by_shard;
  NameList unlisted;
  NameList elsewhere;
  for (const SafetensorsFile& file : files) {
    const std::string shard = file.path().filename().string();
    by_shard.emplace(shard, &file);
    for (const TensorEntry& entry : file.header().entries) {
      const auto listed = weight_map.find(entry.name);
      if (listed == weight_map.end()) {
        unlisted.add(fmt::format("{} (in {})", in_quotes(entry.name), in_quotes(shard)));
      } else if (listed->second != shard) {
        elsewhere.add(fmt::format("{} (in {}, listed in {})", in_quotes(entry.name), in_quotes(shard),
                                  in_quotes(listed->second)));
      }
    }
  }
  NameList lacking;
  for (const auto& [tensor, shard] : weight_map) {
    if (by_shard.at(shard)->find(tensor) == nullptr) {
      lacking.add(fmt::format("{} (not in {})", in_quotes(tensor), in_quotes(shard)));
    }
  }
  std::string faults;
  const auto state = [&faults](const char* what, const NameList& names) {
    if (!names.empty()) {
      faults += fmt::format("{}{} {}", faults.empty() ? "" : "; ", what, names.text());
    }
  };
  state("the index lists what its shard lacks:", lacking);
  state("shards hold what the index does not list:", unlisted);
  state("shards hold what the index lists in another shard:", elsewhere);
  if (!faults.empty()) {
    throw FormatError(fmt::format("{}: index and shards disagree: {}", index.string(), faults));
  }
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile out;
  out.file_ = MappedFile::open(path);
  const std::span<const std::byte> bytes = out.file_.bytes();
  out.header_ = parse_safetensors_header(bytes, static_cast<std::int64_t>(bytes.size()), path.string());
  for (std::size_t i = 0; i < out.header_.entries.size(); ++i) {
    out.by_name_.emplace(out.header_.entries[i].name, i);
  }
  return out;
}

const TensorEntry* SafetensorsFile::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &header_.entries[found->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorEntry& entry) const {
  return file_.bytes().subspan(static_cast<std::size_t>(header_.data_begin + entry.begin),
                               static_cast<std::size_t>(entry.bytes()));
}

SafetensorsSet SafetensorsSet::open(const std::filesystem::path& directory) {
  SafetensorsSet set;
  std::error_code ignored;
  const std::filesystem::path index = directory / kIndexName;
  if (std::filesystem::exists(directory / kSingleName, ignored)) {
    set.files_.push_back(SafetensorsFile::open(directory / kSingleName));
  } else if (std::filesystem::exists(index, ignored)) {
    const std::map<std::string, std::string> weight_map = read_index(index);
    const std::vector<std::string> shards = shards_of(weight_map);
    check_shards_exist(directory, shards);
    for (const std::string& shard : shards) {
      set.files_.push_back(SafetensorsFile::open(directory / shard));
    }
    check_agreement(index, weight_map, set.files_);
  } else if (!std::filesystem::is_directory(directory, ignored)) {
    throw FileError(fmt::format("{}: no such directory; expected the directory of a model", directory.string()));
  } else {
    throw FileError(fmt::format("{}: the directory holds neither {} nor {}; weights are read from safetensors files",
                                directory.string(), kSingleName, kIndexName));
  }
  for (std::size_t f = 0; f < set.files_.size(); ++f) {
    const std::vector<TensorEntry>& entries = set.files_[f].header().entries;
    for (std::size_t e = 0; e < entries.size(); ++e) {
      set.by_name_.emplace(entries[e].name, std::pair(f, e));
    }
  }
  return set;
}

std::optional<SafetensorsSet::Located> SafetensorsSet::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) {
    return std::nullopt;
  }
  const SafetensorsFile& file = files_[found->second.first];
  return Located{&file, &file.header().entries[found->second.second]};
}

std::vector<std::string> SafetensorsSet::names() const {
  std::vector<std::string> names;
  names.reserve(by_name_.size());
  for (const auto& [name, where] : by_name_) {
    names.push_back(name);
  }
  return names;
}

std::int64_t SafetensorsSet::total_bytes() const {
  std::int64_t total = 0;
  for (const SafetensorsFile& file : files_) {
    for (const TensorEntry& entry : file.header().entries) {
      total += entry.bytes();
    }
  }
  return total;
}

}  // namespace caravan::checkpoint
