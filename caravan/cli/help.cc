// The help texts: the option table, printed.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "caravan/cli/options.h"

namespace caravan::cli {

namespace {

constexpr std::size_t kColumns = 100;
constexpr std::size_t kWidestLabel = 28;  // beyond it the explanation starts on the next line

// Words of `text` in lines of at most kColumns, each but the first indented.
std::string wrap(const std::string& text, std::size_t indent) {
  std::string result;
  std::size_t column = indent;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (column > indent && column + 1 + word.size() > kColumns) {
      result.append("\n").append(indent, ' ');
      column = indent;
    } else if (column > indent) {
      result += " ";
      ++column;
    }
    result += word;
    column += word.size();
  }
  return result;
}

struct Row {
  std::string label;
  std::string text;
};

std::string table(const std::string& title, const std::vector<Row>& rows) {
  if (rows.empty()) {
    return "";
  }
  std::size_t width = 0;
  for (const Row& row : rows) {
    width = std::max(width, row.label.size() <= kWidestLabel ? row.label.size() : 0);
  }
  const std::size_t indent = 2 + width + 2;
  std::string text = "\n" + title + ":\n";
  for (const Row& row : rows) {
    text += "  " + row.label;
    if (row.label.size() <= width) {
      text.append(indent - 2 - row.label.size(), ' ');
    } else {
      text.append("\n").append(indent, ' ');
    }
    text += wrap(row.text, indent) + "\n";
  }
  return text;
}

Row row_of(const OptionSpec& spec) {
  std::string text = spec.help;
  if (!spec.choices.empty()) {
    text += fmt::format(": {} {}", spec.kind == OptionKind::kChoiceList ? "a comma-separated list of" : "one of",
                        fmt::join(spec.choices, ", "));
  }
  if (spec.repeatable) {
    text += "; may be given several times";
  }
  if (spec.required) {
    text += spec.positional ? "" : " (required)";
  } else if (!spec.default_note.empty() || !spec.default_value.empty()) {
    text += fmt::format(" (default: {})", spec.default_note.empty() ? spec.default_value : spec.default_note);
  }
  return {.label = spec.value_name.empty() ? spec.name : spec.name + " " + spec.value_name, .text = text};
}

std::vector<Row> rows_of(const std::vector<OptionSpec>& options, bool positional, const std::string& group = "") {
  std::vector<Row> rows;
  for (const OptionSpec& spec : options) {
    if (spec.positional == positional && spec.group == group) {
      rows.push_back(row_of(spec));
    }
  }
  return rows;
}

}  // namespace

std::string help_text(const Program& program) {
  std::string text = fmt::format("usage: {} COMMAND [options]\n\n{}\n", program.name, wrap(program.summary, 0));
  std::vector<Row> commands;
  for (const CommandSpec& command : program.commands) {
    commands.push_back({.label = command.name, .text = command.summary});
  }
  text += table("commands", commands);
  std::vector<Row> options = rows_of(program.common_options, false);
  options.push_back({.label = "--version", .text = "print the version"});
  options.push_back({.label = "-h, --help", .text = "print this, or a command's own help"});
  text += table("options", options);
  return text + fmt::format("\n{} COMMAND --help explains a command.\n", program.name);
}

std::string help_text(const Program& program, const CommandSpec& command) {
  std::string usage = fmt::format("usage: {} {}", program.name, command.name);
  for (const OptionSpec& spec : command.options) {
    if (spec.positional) {
      usage.append(spec.required ? " " : " [").append(spec.name).append(spec.variadic ? "..." : "");
      usage.append(spec.required ? "" : "]");
    } else if (spec.required) {
      usage.append(" ").append(spec.name).append(" ").append(spec.value_name);
    }
  }
  std::string text = wrap(usage + " [options]", 7) + "\n\n" + wrap(command.description, 0) + "\n";
  text += table("arguments", rows_of(command.options, true));
  text += table("options", rows_of(command.options, false));
  std::set<std::string> shown = {""};
  for (const OptionSpec& spec : command.options) {
    if (shown.insert(spec.group).second) {
      text += table(spec.group, rows_of(command.options, false, spec.group));
    }
  }
  std::vector<Row> common = rows_of(program.common_options, false);
  common.push_back({.label = "-h, --help", .text = "print this"});
  text += table("common options", common);
  if (!command.examples.empty()) {
    text += fmt::format("\nexamples:\n  {}\n", fmt::join(command.examples, "\n  "));
  }
  return text;
}

}  // namespace caravan::cli
