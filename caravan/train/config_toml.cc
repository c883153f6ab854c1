// Values into a Config, from TOML and from a command line.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/train/config_keys.h"
#include "caravan/train/config_table.h"
#include "caravan/train/toml_ascii.h"

namespace caravan::train {

namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 20;

std::string describe(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return fmt::format("the text \"{}\"", printable(**node.as_string(), 60));
    case toml::node_type::integer:
      return fmt::format("{}", **node.as_integer());
    case toml::node_type::floating_point:
      return fmt::format("{:#}", **node.as_floating_point());  // 1000.0, which is no whole number
    case toml::node_type::boolean:
      return **node.as_boolean() ? "true" : "false";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::table:
      return "a section";
    default:
      return "a date or time";
  }
}

[[noreturn]] void throw_unexpected(const Row& row, const toml::node& found) {
  throw ConfigError(fmt::format("{}: expected {}, found {}", row.name, expectation(row), describe(found)));
}

void read_scalar(const Row& row, const toml::node& node, std::string& value) {
  const auto* text = node.as_string();
  if (text == nullptr || (!row.choices.empty() && std::ranges::find(row.choices, text->get()) == row.choices.end())) {
    throw_unexpected(row, node);
  }
  value = text->get();
}

void read_scalar(const Row& row, const toml::node& node, std::int64_t& value) {
  const auto* number = node.as_integer();
  if (number == nullptr || !row.limits.hold(static_cast<double>(number->get()))) {
    throw_unexpected(row, node);
  }
  value = number->get();
}

void read_scalar(const Row& row, const toml::node& node, double& value) {
  // Whole numbers may stand for decimals, up to where doubles hold them exactly.
  const auto* whole = node.as_integer();
  const auto* decimal = node.as_floating_point();
  if (whole == nullptr && decimal == nullptr) {
    throw_unexpected(row, node);
  }
  const double number = whole != nullptr ? static_cast<double>(whole->get()) : decimal->get();
  if (!std::isfinite(number) || !row.limits.hold(number)) {
    throw_unexpected(row, node);
  }
  value = number;
}

void read_scalar(const Row& row, const toml::node& node, bool& value) {
  const auto* truth = node.as_boolean();
  if (truth == nullptr) {
    throw_unexpected(row, node);
  }
  value = truth->get();
}

template <typename T>
void read_value(const Row& row, const toml::node& node, T& value) {
  read_scalar(row, node, value);
}

template <typename T>
void read_value(const Row& row, const toml::node& node, std::optional<T>& value) {
  T present{};
  read_scalar(row, node, present);
  value = present;
}

// A single value may stand for a list of one.
template <typename T>
void read_value(const Row& row, const toml::node& node, std::vector<T>& value) {
  std::vector<T> list;
  if (const auto* array = node.as_array()) {
    for (const toml::node& one : *array) {
      read_scalar(row, one, list.emplace_back());
    }
  } else {
    read_scalar(row, node, list.emplace_back());
  }
  value = std::move(list);
}

void assign(Config& config, const Row& row, const toml::node& node) {
  std::visit([&](auto* slot) { read_value(row, node, *slot); }, row.slot(config));
}

std::string key_part(const std::string& name) {
  return name.substr(name.find('.') + 1);
}

// The key that `name` was meant to be, or nothing: the same word in another section, a plain name, a near spelling.
std::optional<std::string> meant(const std::string& name) {
  const std::string word = name.substr(name.rfind('.') + 1);
  std::vector<std::string> names;
  std::vector<std::string> neighbours;
  for (const Row& row : rows()) {
    names.push_back(row.name);
    if (row.name.substr(0, row.name.find('.')) == name.substr(0, name.find('.'))) {
      neighbours.push_back(key_part(row.name));
    }
  }
  if (const auto near = nearest_word(word, neighbours)) {
    return name.substr(0, name.find('.')) + "." + *near;
  }
  for (const Row& row : rows()) {
    if (key_part(row.name) == word || row.plain_name == word) {
      return row.name;
    }
  }
  return nearest_word(name, names);
}

[[noreturn]] void throw_unknown(const std::string& name) {
  const auto key = meant(name);
  throw ConfigError(fmt::format("unknown key {}; {}", printable(name, 80),
                                key ? fmt::format("did you mean {}?", *key) : "caravan train --help lists the keys"));
}

// `accepted` is compared as TOML writes it.
bool asks_for_nothing(const ForeignKey& key, const toml::node& value) {
  if (key.accepted == "*") {
    return true;
  }
  if (const auto* text = value.as_string()) {
    return key.accepted == toml_string(text->get());
  }
  if (const auto* array = value.as_array()) {
    return array->empty() && key.accepted == "[]";
  }
  return !key.accepted.empty() && key.accepted == describe(value);
}

void refuse_foreign(const std::string& name, const toml::node& value) {
  const ForeignKey* key = find_foreign(name);
  if (key == nullptr) {
    throw_unknown(name);
  }
  if (!asks_for_nothing(*key, value)) {
    throw ConfigError(
        key->advice.empty()
            ? fmt::format("{} = {} is torchtitan's and has no meaning here; remove it", name,
                          value.is_string() ? toml_string(printable(**value.as_string(), 60)) : describe(value))
            : fmt::format("{} is torchtitan's and has no meaning here; {}", name, key->advice));
  }
}

// Whether keys may stand below `name`.
bool is_section(const std::string& name) {
  const std::string prefix = name + ".";
  const auto below = [&](const auto& one) { return one.name.starts_with(prefix); };
  return std::ranges::any_of(rows(), below) || std::ranges::any_of(foreign_keys(), below) ||
         find_foreign(prefix) != nullptr;
}

[[noreturn]] void throw_unknown_section(const std::string& name) {
  std::vector<std::string> sections;
  for (const Row& row : rows()) {
    const std::string section = row.name.substr(0, row.name.find('.'));
    if (sections.empty() || sections.back() != section) {
      sections.push_back(section);
    }
  }
  const auto near = nearest_word(name, sections);
  throw ConfigError(fmt::format(
      "unknown section [{}]; {}", printable(name, 80),
      near ? fmt::format("did you mean [{}]?", *near) : fmt::format("there are {}", fmt::join(sections, ", "))));
}

void read_table(Config& config, const toml::table& table, const std::string& prefix, const std::string& source) {
  for (const auto& [key, node] : table) {
    const std::string name = prefix + std::string(key.str());
    const bool section = node.is_table() && find_row(name) == nullptr && is_section(name);
    if (section) {
      read_table(config, *node.as_table(), name + ".", source);
      continue;
    }
    // A wrong value is shown where it stands, an unknown name where the name stands.
    const Row* row = prefix.empty() ? nullptr : find_row(name);
    const toml::source_position place = row != nullptr ? node.source().begin : key.source().begin;
    try {
      if (row != nullptr) {
        assign(config, *row, node);
      } else if (node.is_table() && find_foreign(name) == nullptr) {
        throw_unknown_section(name);
      } else if (is_section(name) && find_foreign(name) == nullptr) {
        throw ConfigError(fmt::format("{}: expected a section, [{}], found {}", name, name, describe(node)));
      } else {
        refuse_foreign(name, node);
      }
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("{}: {}; line {}, column {}", source, error.what(), place.line, place.column));
    }
  }
}

toml::table parse_toml(std::string_view text, const std::string& source) {
  if (text.size() > kMaxBytes) {
    throw ConfigError(fmt::format("{}: a configuration of {} bytes is not read; at most {} are", source,
                                  grouped(static_cast<std::int64_t>(text.size())), grouped(kMaxBytes)));
  }
  const std::string ascii = ascii_toml(text, source);
  try {
    return toml::parse(ascii, source);
  } catch (const toml::parse_error& error) {
    std::string what(error.description());
    throw ConfigError(fmt::format("{}: not TOML: {}; line {}, column {}", source, printable(what, 300),
                                  error.source().begin.line, error.source().begin.column));
  }
}

template <typename T>
std::unique_ptr<toml::node> number_node(const std::string& text) {
  T number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc{} && end == text.data() + text.size() && !text.empty();
  return whole ? std::make_unique<toml::value<T>>(number) : nullptr;
}

// The node that TOML would have for `text`; a text where it is not of the wanted kind, which assign() then refuses.
std::unique_ptr<toml::node> scalar_node(KeyKind kind, const std::string& text) {
  std::unique_ptr<toml::node> node;
  if (kind == KeyKind::kInteger || kind == KeyKind::kNumber || kind == KeyKind::kNumberList) {
    node = number_node<std::int64_t>(text);
    node = node != nullptr ? std::move(node) : number_node<double>(text);
  } else if (kind == KeyKind::kBool && (text == "true" || text == "false")) {
    node = std::make_unique<toml::value<bool>>(text == "true");
  }
  return node != nullptr ? std::move(node) : std::make_unique<toml::value<std::string>>(text);
}

std::unique_ptr<toml::node> command_line_value(const Row& row, const std::string& text) {
  const KeyKind kind = kind_of(row);
  if (kind != KeyKind::kTextList && kind != KeyKind::kNumberList) {
    return scalar_node(kind, text);
  }
  auto list = std::make_unique<toml::array>();
  if (text.starts_with('[')) {
    toml::table table = parse_toml("list = " + text, row.name);
    if (table.size() != 1 || !table["list"].is_array()) {
      throw ConfigError(fmt::format("{}: expected {}, found \"{}\"", row.name, expectation(row), printable(text, 60)));
    }
    *list = std::move(*table["list"].as_array());
    return list;
  }
  for (std::size_t begin = 0, end = 0; !text.empty() && end != std::string::npos; begin = end + 1) {
    end = text.find(',', begin);
    if (begin == text.size() || begin == end) {
      throw ConfigError(
          fmt::format("{}: \"{}\" has nothing on one side of a comma; an empty text is written in a TOML "
                      "array, as [\"\"]",
                      row.name, printable(text, 60)));
    }
    const auto one = scalar_node(kind, text.substr(begin, end - begin));
    one->visit([&](const auto& node) { list->push_back(node); });
  }
  return list;
}

}  // namespace

void read_toml(Config& config, std::string_view text, const std::string& source) {
  Config changed = config;
  read_table(changed, parse_toml(text, source), "", source);
  config = std::move(changed);
}

void set_key(Config& config, const std::string& name, const std::string& value) {
  const Row* row = find_row(name);
  if (row == nullptr) {
    refuse_foreign(name, *scalar_node(KeyKind::kBool, value));
    return;
  }
  if (value == "unset" && value_text(*row, Config{}) == "unset") {
    std::visit([](auto* slot) { *slot = {}; }, row->slot(config));
    return;
  }
  const std::string where = name == row->name ? name : fmt::format("{} ({})", name, row->name);
  // TOML is UTF-8: what is printed could not be read again.
  if (!is_utf8(value)) {
    throw ConfigError(fmt::format("{}: the text is not UTF-8: \"{}\"", where, printable(value, 60)));
  }
  assign(config, *row, *command_line_value(*row, value));
}

}  // namespace caravan::train
