#include "caravan/train/config_keys.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "caravan/train/config_table.h"

namespace caravan::train {

namespace {

template <typename T>
constexpr bool kIsOptional = false;
template <typename T>
constexpr bool kIsOptional<std::optional<T>> = true;

// A number that TOML reads as a decimal one: "0.1", "1e-08", "1.0".
std::string toml_number(double value) {
  std::string text = fmt::format("{}", value);
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) {
    text += ".0";
  }
  return text;
}

template <typename T>
std::string toml_value(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return toml_string(value);
  } else if constexpr (std::is_same_v<T, double>) {
    return toml_number(value);
  } else if constexpr (kIsOptional<T>) {
    return value ? toml_value(*value) : "unset";
  } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::int64_t>) {
    return fmt::format("{}", value);
  } else {
    std::vector<std::string> parts;
    for (const auto& one : value) {
      parts.push_back(toml_value(one));
    }
    return fmt::format("[{}]", fmt::join(parts, ", "));
  }
}

std::string section_of(const std::string& name) {
  return name.substr(0, name.find('.'));
}

const char* type_name(KeyKind kind) {
  switch (kind) {
    case KeyKind::kText:
      return "text";
    case KeyKind::kTextList:
      return "list of texts";
    case KeyKind::kInteger:
      return "whole number";
    case KeyKind::kNumber:
      return "number";
    case KeyKind::kNumberList:
      return "list of numbers";
    case KeyKind::kBool:
      return "true or false";
    case KeyKind::kChoice:
      return "choice";
  }
  return "";
}

}  // namespace

KeyKind kind_of(const Row& row) {
  Config config;
  struct Kind {
    KeyKind operator()(const std::string*) const { return KeyKind::kText; }
    KeyKind operator()(const std::vector<std::string>*) const { return KeyKind::kTextList; }
    KeyKind operator()(const std::vector<double>*) const { return KeyKind::kNumberList; }
    KeyKind operator()(const std::int64_t*) const { return KeyKind::kInteger; }
    KeyKind operator()(const std::optional<std::int64_t>*) const { return KeyKind::kInteger; }
    KeyKind operator()(const double*) const { return KeyKind::kNumber; }
    KeyKind operator()(const std::optional<double>*) const { return KeyKind::kNumber; }
    KeyKind operator()(const bool*) const { return KeyKind::kBool; }
    KeyKind operator()(const std::optional<bool>*) const { return KeyKind::kBool; }
  };
  const KeyKind kind = std::visit(Kind{}, row.slot(config));
  return kind == KeyKind::kText && !row.choices.empty() ? KeyKind::kChoice : kind;
}

std::string expectation(const Row& row) {
  const std::string limits = row.limits.text();
  switch (kind_of(row)) {
    case KeyKind::kText:
      return "a text";
    case KeyKind::kTextList:
      return row.choices.empty() ? "a list of texts"
                                 : fmt::format("a list of some of {}", fmt::join(row.choices, ", "));
    case KeyKind::kInteger:
      return "a whole number" + limits;
    case KeyKind::kNumber:
      return "a number" + limits;
    case KeyKind::kNumberList:
      return "a list of numbers, each" + (limits.empty() ? " finite" : limits.substr(1));
    case KeyKind::kBool:
      return "true or false";
    case KeyKind::kChoice:
      return row.choices.size() == 1 ? fmt::format("\"{}\"", row.choices[0])
                                     : fmt::format("one of {}", fmt::join(row.choices, ", "));
  }
  return "";
}

std::string toml_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      quoted += fmt::format("\\u{:04x}", byte);
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

std::string value_text(const Row& row, const Config& config) {
  Config copy = config;
  return std::visit([](const auto* slot) { return toml_value(*slot); }, row.slot(copy));
}

const std::vector<ConfigKey>& config_keys() {
  static const std::vector<ConfigKey> keys = [] {
    std::vector<ConfigKey> list;
    for (const Row& row : rows()) {
      list.push_back({.name = row.name,
                      .kind = kind_of(row),
                      .default_text = value_text(row, Config{}),
                      .help = row.help,
                      .choices = row.choices,
                      .plain_name = row.plain_name,
                      .differs = row.differs});
    }
    return list;
  }();
  return keys;
}

std::string print_toml(const Config& config) {
  std::string text;
  std::string section;
  for (const Row& row : rows()) {
    if (section_of(row.name) != section) {
      section = section_of(row.name);
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
    }
    const std::string value = value_text(row, config);
    if (value != "unset") {
      text += fmt::format("{} = {}\n", row.name.substr(section.size() + 1), value);
    }
  }
  return text;
}

std::string print_reference() {
  std::string text =
      "# Configuration keys\n\n"
      "<!-- Made by print_reference(); train_config_test compares, and writes it with CARAVAN_UPDATE_DOCS=1. -->\n\n"
      "A run is told what to do by a TOML file and by flags: `caravan train CONFIG.toml --training.steps 100`. Flags "
      "win\n"
      "over the file, the file over the defaults. Sections and keys are torchtitan's wherever the meaning is the "
      "same.\n\n"
      "On the command line a list is separated by commas or written as a TOML array, `--checkpoint.enable` and\n"
      "`--checkpoint.no-enable` stand for true and false, and `unset` takes a value away where nothing is the "
      "default.\n";
  std::string section;
  for (const ConfigKey& key : config_keys()) {
    if (section_of(key.name) != section) {
      section = section_of(key.name);
      text += fmt::format("\n## {}\n\n| key | type | default | what it is |\n|---|---|---|---|\n", section);
    }
    const std::string type =
        key.choices.empty()
            ? type_name(key.kind)
            : fmt::format("{}`{}`", key.kind == KeyKind::kTextList ? "list of " : "", fmt::join(key.choices, "`, `"));
    text += fmt::format("| `{}` | {} | `{}` | {} |\n", key.name.substr(section.size() + 1), type, key.default_text,
                        key.help);
  }
  text += "\n## Plain names\n\nFlags that plain trainers use, and the keys they set.\n\n| flag | key |\n|---|---|\n";
  for (const ConfigKey& key : config_keys()) {
    if (!key.plain_name.empty()) {
      text += fmt::format("| `--{}` | `{}` |\n", key.plain_name, key.name);
    }
  }
  text +=
      "\n## Where Caravan differs from torchtitan\n\nCompared with torchtitan 0.2.2. A key that is not in this list "
      "has "
      "torchtitan's default and meaning.\n\n| key | difference |\n|---|---|\n";
  for (const ConfigKey& key : config_keys()) {
    if (!key.differs.empty()) {
      text += fmt::format("| `{}` | {} |\n", key.name, key.differs);
    }
  }
  text +=
      "\n### torchtitan keys that Caravan does not have\n\nThey are accepted with the value below, which asks for "
      "nothing, and refused with any other.\n\n| key | accepted |\n|---|---|\n";
  for (const ForeignKey& key : foreign_keys()) {
    const std::string accepted = key.accepted == "*"    ? "any; nothing looks at it"
                                 : key.accepted.empty() ? "no" + (key.advice.empty() ? "" : "; " + key.advice)
                                                        : fmt::format("`{}`", key.accepted);
    text += fmt::format("| `{}{}` | {} |\n", key.name, key.name.ends_with('.') ? "*" : "", accepted);
  }
  return text;
}

}  // namespace caravan::train
