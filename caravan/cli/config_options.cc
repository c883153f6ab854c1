#include "caravan/cli/config_options.h"

#include <fmt/format.h>

#include <cstdint>
#include <string>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/train/config_keys.h"

namespace caravan::cli {

namespace {

constexpr const char* kFile = "CONFIG.toml";
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 20;

const char* value_name(train::KeyKind kind) {
  switch (kind) {
    case train::KeyKind::kText:
      return "TEXT";
    case train::KeyKind::kTextList:
      return "TEXT,...";
    case train::KeyKind::kInteger:
      return "INTEGER";
    case train::KeyKind::kNumber:
      return "NUMBER";
    case train::KeyKind::kNumberList:
      return "NUMBER,...";
    case train::KeyKind::kBool:
      return "true|false";
    case train::KeyKind::kChoice:
      return "WORD";
  }
  return "";
}

// Kinds and limits are checked where the key is set, so that a flag and a file are told the same sentence.
OptionKind option_kind(train::KeyKind kind) {
  switch (kind) {
    case train::KeyKind::kBool:
      return OptionKind::kSwitch;
    case train::KeyKind::kChoice:
      return OptionKind::kChoice;
    default:
      return OptionKind::kText;
  }
}

// `"text"` without its quotes, as one would type it.
std::string typed(const std::string& toml) {
  return toml.size() >= 2 && toml.front() == '"' ? toml.substr(1, toml.size() - 2) : toml;
}

// What help shows for the default: nothing where there is none, for `help` says what happens then.
std::string default_note(const train::ConfigKey& key) {
  const std::string text = typed(key.default_text);
  return text.empty() || text == "[]" ? "none" : text;
}

}  // namespace

std::vector<OptionSpec> config_options() {
  std::vector<OptionSpec> options = {{.name = kFile,
                                      .value_name = "",
                                      .kind = OptionKind::kFile,
                                      .help = "the run's configuration; options win over it",
                                      .positional = true}};
  std::vector<OptionSpec> plain;
  for (const train::ConfigKey& key : train::config_keys()) {
    OptionSpec spec = {.name = "--" + key.name,
                       .value_name = value_name(key.kind),
                       .kind = option_kind(key.kind),
                       .help = key.help,
                       .default_note = default_note(key),
                       .choices = key.choices};
    spec.group = fmt::format("[{}]", key.name.substr(0, key.name.find('.')));
    options.push_back(spec);
    if (!key.plain_name.empty()) {
      spec.help = fmt::format("the same as {}", spec.name);
      spec.name = "--" + key.plain_name;
      spec.default_note.clear();
      spec.group = "plain names";
      plain.push_back(spec);
    }
  }
  options.insert(options.end(), plain.begin(), plain.end());
  return options;
}

train::Config read_config(const ParsedOptions& options) {
  train::Config config;
  if (options.has(kFile)) {
    const std::string path = options.text(kFile);
    train::read_toml(config, read_text_file(path, kMaxBytes), path);
  }
  for (const train::ConfigKey& key : train::config_keys()) {
    const bool full = options.has("--" + key.name);
    const bool plain = !key.plain_name.empty() && options.has("--" + key.plain_name);
    if (full && plain) {
      throw InputError(fmt::format("options --{} and --{} are the same; give one", key.name, key.plain_name));
    }
    if (full || plain) {
      const std::string& name = full ? key.name : key.plain_name;
      try {
        train::set_key(config, name, options.text("--" + name));
      } catch (const ConfigError& error) {
        throw ConfigError(fmt::format("--{}", error.what()));
      }
    }
  }
  if (options.has("--threads")) {
    if (options.has("--training.threads")) {
      throw InputError("options --threads and --training.threads are the same; give one");
    }
    config.training.threads = options.integer("--threads").value_or(config.training.threads);
  }
  return config;
}

}  // namespace caravan::cli
