#include "caravan/cli/options.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <string_view>

#include "caravan/base/error.h"
#include "caravan/base/text.h"

namespace caravan::cli {

namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  for (std::size_t end = 0; end != std::string::npos; begin = end + 1) {
    end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end - begin));
  }
  return parts;
}

// The whole text as a number, or nothing.
template <typename T>
std::optional<T> parse_number(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

std::string range_of(const OptionSpec& spec) {
  const bool low = spec.minimum != std::numeric_limits<std::int64_t>::min();
  const bool high = spec.maximum != std::numeric_limits<std::int64_t>::max();
  if (low && high) {
    return fmt::format("a whole number from {} to {}", spec.minimum, spec.maximum);
  }
  if (low) {
    return fmt::format("a whole number, at least {}", spec.minimum);
  }
  return high ? fmt::format("a whole number, at most {}", spec.maximum) : "a whole number";
}

// What `value` should have been, or nothing when it is right.
std::optional<std::string> expectation_missed(const OptionSpec& spec, const std::string& value) {
  switch (spec.kind) {
    case OptionKind::kFlag:
    case OptionKind::kText:
      return std::nullopt;
    case OptionKind::kSwitch:
      return value == "true" || value == "false" ? std::nullopt : std::optional<std::string>("true or false");
    case OptionKind::kFile:
      return value.empty() ? std::optional<std::string>("the path of a file") : std::nullopt;
    case OptionKind::kDirectory:
      return value.empty() ? std::optional<std::string>("the path of a directory") : std::nullopt;
    case OptionKind::kInteger: {
      const auto number = parse_number<std::int64_t>(value);
      const bool right = number && *number >= spec.minimum && *number <= spec.maximum;
      return right ? std::nullopt : std::optional<std::string>(range_of(spec));
    }
    case OptionKind::kNumber: {
      const auto number = parse_number<double>(value);
      return number && std::isfinite(*number) ? std::nullopt : std::optional<std::string>("a number");
    }
    case OptionKind::kChoice:
    case OptionKind::kChoiceList: {
      const bool several = spec.kind == OptionKind::kChoiceList;
      std::set<std::string> seen;
      for (const std::string& word : several ? split(value, ',') : std::vector<std::string>{value}) {
        const bool known = std::find(spec.choices.begin(), spec.choices.end(), word) != spec.choices.end();
        if (!known || !seen.insert(word).second) {
          return fmt::format("{} {}", several ? "a list, without blanks or repetition, of" : "one of",
                             fmt::join(spec.choices, several ? "," : ", "));
        }
      }
      return std::nullopt;
    }
  }
  return std::nullopt;
}

const OptionSpec* find_option(std::span<const OptionSpec> options, std::string_view name) {
  const auto found = std::find_if(options.begin(), options.end(), [&](const auto& one) { return one.name == name; });
  return found == options.end() ? nullptr : &*found;
}

// All that a command takes.
std::vector<OptionSpec> options_of(const Program& program, const CommandSpec& command) {
  std::vector<OptionSpec> all = command.options;
  all.insert(all.end(), program.common_options.begin(), program.common_options.end());
  return all;
}

// " (did you mean ...?)", or nothing when no word is near.
std::string suggestion(const std::string& word, const std::vector<std::string>& words) {
  const auto nearest = nearest_word(word, words);
  return nearest ? fmt::format(" (did you mean {}?)", *nearest) : "";
}

[[noreturn]] void throw_unknown_option(const Program& program, const CommandSpec* command, const std::string& argument,
                                       std::span<const OptionSpec> options) {
  const std::string name = argument.substr(0, argument.find('='));
  std::vector<std::string> names = {"--help"};
  if (command == nullptr) {
    names.push_back("--version");
  }
  for (const OptionSpec& one : options) {
    if (!one.positional) {
      names.push_back(one.name);
    }
  }
  const std::string where = command == nullptr ? program.name : fmt::format("{} {}", program.name, command->name);
  throw InputError(fmt::format("{}unknown option {}{}; {} --help lists the options",
                               command == nullptr ? "" : command->name + ": ", printable(name, 60),
                               suggestion(name, names), where));
}

bool is_help(const std::string& argument) {
  return argument == "--help" || argument == "-h";
}

// A command and the number of words of its name.  Nothing: help was asked for a word that begins the names of several.
struct Named {
  const CommandSpec* command = nullptr;
  std::size_t words = 0;
};

Named find_command(const Program& program, std::span<const std::string> arguments) {
  std::vector<std::string> names;
  std::vector<std::string> second_words;
  std::vector<const CommandSpec*> group;
  for (const CommandSpec& one : program.commands) {
    const std::vector<std::string> words = split(one.name, ' ');
    if (words.size() <= arguments.size() && std::equal(words.begin(), words.end(), arguments.begin())) {
      return {&one, words.size()};
    }
    if (words.size() == 2 && words[0] == arguments[0]) {
      group.push_back(&one);
      second_words.push_back(words[1]);
    }
    names.push_back(one.name);
  }
  if (group.empty()) {
    throw InputError(fmt::format("unknown command \"{}\"{}; {} --help lists the commands", printable(arguments[0], 60),
                                 suggestion(arguments[0], names), program.name));
  }
  if (arguments.size() > 1 && is_help(arguments[1])) {
    return {group.size() == 1 ? group[0] : nullptr, 1};
  }
  const std::string found = arguments.size() > 1 ? fmt::format(", not \"{}\"", printable(arguments[1], 60)) : "";
  throw InputError(fmt::format("{} is followed by {}{}{}; {} --help lists the commands", arguments[0],
                               fmt::join(second_words, " or "), found,
                               arguments.size() > 1 ? suggestion(arguments[1], second_words) : "", program.name));
}

[[noreturn]] void throw_missing_value(const CommandSpec* command, const OptionSpec& spec) {
  throw InputError(fmt::format("{}option {} needs a value: {} {}", command == nullptr ? "" : command->name + ": ",
                               spec.name, spec.name, spec.value_name));
}

// What stands before the command's name: help, version, or common options, which are handed on to the command.
struct Leading {
  std::optional<Invocation::Action> action;
  std::vector<std::string> handed_on;
  std::size_t consumed = 0;
};

Leading read_leading(const Program& program, std::span<const std::string> arguments) {
  Leading leading;
  std::size_t& i = leading.consumed;
  while (i < arguments.size() && arguments[i].starts_with('-')) {
    const std::string& argument = arguments[i];
    if (is_help(argument) || argument == "--version") {
      leading.action = is_help(argument) ? Invocation::Action::kHelp : Invocation::Action::kVersion;
      return leading;
    }
    const std::size_t equals = argument.find('=');
    const OptionSpec* spec = find_option(program.common_options, argument.substr(0, equals));
    if (spec == nullptr) {
      throw_unknown_option(program, nullptr, argument, program.common_options);
    }
    leading.handed_on.push_back(argument);
    ++i;
    if (needs_value(*spec) && equals == std::string::npos) {
      if (i == arguments.size()) {
        throw_missing_value(nullptr, *spec);
      }
      leading.handed_on.push_back(arguments[i++]);
    }
  }
  return leading;
}

// "--checkpoint.enable" of "--checkpoint.no-enable", "--shuffle" of "--no-shuffle"; nothing without a "no-".
std::optional<std::string> without_no(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  const std::size_t word = dot == std::string::npos ? std::string("--").size() : dot + 1;
  if (name.compare(word, 3, "no-") != 0) {
    return std::nullopt;
  }
  return name.substr(0, word) + name.substr(word + 3);
}

// The same arguments with the value of every switch behind an "=".
std::vector<std::string> spell_out_switches(std::span<const OptionSpec> options,
                                            const std::vector<std::string>& arguments) {
  const auto is_switch = [](const OptionSpec* spec) { return spec != nullptr && spec->kind == OptionKind::kSwitch; };
  std::vector<std::string> spelled;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      spelled.insert(spelled.end(), arguments.begin() + static_cast<std::ptrdiff_t>(i), arguments.end());
      break;
    }
    const OptionSpec* spec = find_option(options, argument);
    const auto positive = argument.starts_with("--") ? without_no(argument) : std::nullopt;
    if (is_switch(spec)) {
      const bool valued = i + 1 < arguments.size() && (arguments[i + 1] == "true" || arguments[i + 1] == "false");
      spelled.push_back(argument + "=" + (valued ? arguments[++i] : "true"));
    } else if (positive && is_switch(find_option(options, *positive))) {
      spelled.push_back(*positive + "=false");
    } else {
      spelled.push_back(argument);
      const bool takes_next = spec != nullptr && !spec->positional && needs_value(*spec) && i + 1 < arguments.size();
      if (takes_next && find_option(options, arguments[i + 1]) == nullptr) {
        spelled.push_back(arguments[++i]);
      }
    }
  }
  return spelled;
}

// Every option has a value of its own and every flag none.  CLI11 would take the next argument for the value of
// `--name=`, and the next option for the value of `--name`.
void check_values_present(const CommandSpec& command, std::span<const OptionSpec> options,
                          std::span<const std::string> arguments) {
  for (std::size_t i = 0; i < arguments.size() && arguments[i] != "--"; ++i) {
    const std::size_t equals = arguments[i].find('=');
    const OptionSpec* spec = find_option(options, arguments[i].substr(0, equals));
    if (spec == nullptr || spec->positional) {
      continue;
    }
    if (spec->kind == OptionKind::kFlag) {
      if (equals != std::string::npos) {
        throw InputError(fmt::format("{}: option {} takes no value", command.name, spec->name));
      }
    } else if (equals != std::string::npos) {
      if (equals + 1 == arguments[i].size()) {
        throw_missing_value(&command, *spec);
      }
    } else {
      ++i;
      const OptionSpec* next = i < arguments.size() ? find_option(options, arguments[i]) : nullptr;
      if (i == arguments.size() || (next != nullptr && !next->positional)) {
        throw_missing_value(&command, *spec);
      }
    }
  }
}

// CLI11 takes the line apart; kinds, requirements and sentences are ours.
std::map<std::string, std::vector<std::string>> read_options(const Program& program, const CommandSpec& command,
                                                             const std::vector<OptionSpec>& options,
                                                             const std::vector<std::string>& arguments) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  std::vector<CLI::Option*> handles;
  for (std::size_t i = 0; i < options.size(); ++i) {
    const OptionSpec& spec = options[i];
    if (spec.kind == OptionKind::kFlag) {
      handles.push_back(app.add_flag(spec.name)->disable_flag_override());
    } else {
      handles.push_back(app.add_option(spec.positional ? fmt::format("argument{}", i) : spec.name));
    }
    handles.back()->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    handles.back()->allow_extra_args(spec.variadic);
  }
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
    app.parse(std::move(reversed));
  } catch (const CLI::ParseError& error) {
    throw InputError(
        fmt::format("{}: {}; {} {} --help shows the usage", command.name, error.what(), program.name, command.name));
  }
  const std::vector<std::string> extras = app.remaining();
  for (const std::string& extra : extras) {
    if (extra.size() > 1 && extra.starts_with('-') && extra != "--") {
      throw_unknown_option(program, &command, extra, options);
    }
  }
  for (const std::string& extra : extras) {
    if (extra != "--") {
      throw InputError(fmt::format("{}: \"{}\" is one argument too many; {} {} --help shows the usage", command.name,
                                   printable(extra, 60), program.name, command.name));
    }
  }
  std::map<std::string, std::vector<std::string>> given;
  for (std::size_t i = 0; i < options.size(); ++i) {
    const std::vector<std::string>& results = handles[i]->results();
    if (results.empty()) {
      continue;
    }
    const bool several = options[i].variadic || options[i].repeatable;
    if (results.size() > 1 && options[i].kind != OptionKind::kFlag && !several) {
      throw InputError(
          fmt::format("{}: option {} is given {} times; give it once", command.name, options[i].name, results.size()));
    }
    given[options[i].name] = several ? results : std::vector<std::string>{results[0]};
  }
  return given;
}

}  // namespace

bool needs_value(const OptionSpec& spec) {
  return spec.kind != OptionKind::kFlag && spec.kind != OptionKind::kSwitch;
}

ParsedOptions::ParsedOptions(std::map<std::string, OptionSpec> specs,
                             std::map<std::string, std::vector<std::string>> given)
    : specs_(std::move(specs)), given_(std::move(given)) {}

bool ParsedOptions::has(const std::string& name) const {
  specs_.at(name);
  return given_.contains(name);
}

std::string ParsedOptions::text(const std::string& name) const {
  const OptionSpec& spec = specs_.at(name);
  const auto found = given_.find(name);
  return found == given_.end() ? spec.default_value : found->second.front();
}

std::optional<std::int64_t> ParsedOptions::integer(const std::string& name) const {
  return parse_number<std::int64_t>(text(name));
}

std::optional<double> ParsedOptions::number(const std::string& name) const {
  return parse_number<double>(text(name));
}

std::vector<std::string> ParsedOptions::list(const std::string& name) const {
  const std::string value = text(name);
  return value.empty() ? std::vector<std::string>{} : split(value, ',');
}

std::vector<std::string> ParsedOptions::values(const std::string& name) const {
  specs_.at(name);
  const auto found = given_.find(name);
  return found == given_.end() ? std::vector<std::string>{} : found->second;
}

Invocation parse(const Program& program, std::span<const std::string> arguments) {
  Leading leading = read_leading(program, arguments);
  if (leading.action || arguments.empty()) {
    return {.action = leading.action.value_or(Invocation::Action::kHelp), .command = nullptr, .options = {}};
  }
  if (leading.consumed == arguments.size()) {
    throw InputError(fmt::format("no command is given; {} --help lists the commands", program.name));
  }
  const std::string& first = arguments[leading.consumed];
  const bool explains = first == "help";
  if ((explains || first == "version") && leading.consumed + 1 == arguments.size()) {
    return {.action = explains ? Invocation::Action::kHelp : Invocation::Action::kVersion,
            .command = nullptr,
            .options = {}};
  }
  const Named named = find_command(program, arguments.subspan(leading.consumed + (explains ? 1 : 0)));
  if (explains) {
    return {.action = Invocation::Action::kHelp, .command = named.command, .options = {}};
  }
  if (named.command == nullptr) {
    return {.action = Invocation::Action::kHelp, .command = nullptr, .options = {}};
  }
  const CommandSpec& command = *named.command;
  const std::vector<OptionSpec> options = options_of(program, command);
  std::vector<std::string> own = std::move(leading.handed_on);
  own.insert(own.end(), arguments.begin() + static_cast<std::ptrdiff_t>(leading.consumed + named.words),
             arguments.end());
  for (const std::string& argument : own) {
    if (argument == "--") {
      break;
    }
    if (is_help(argument)) {
      return {.action = Invocation::Action::kHelp, .command = &command, .options = {}};
    }
  }
  own = spell_out_switches(options, own);
  check_values_present(command, options, own);
  const std::map<std::string, std::vector<std::string>> given = read_options(program, command, options, own);
  std::map<std::string, OptionSpec> specs;
  for (const OptionSpec& spec : options) {
    const auto found = given.find(spec.name);
    if (found == given.end() && spec.required) {
      throw InputError(fmt::format("{}: {} {}{} is missing; {} {} --help shows the usage", command.name,
                                   spec.positional ? "argument" : "option", spec.name,
                                   spec.value_name.empty() ? "" : " " + spec.value_name, program.name, command.name));
    }
    for (const std::string& value : found == given.end() ? std::vector<std::string>{} : found->second) {
      if (const auto expected = expectation_missed(spec, value)) {
        throw InputError(
            fmt::format("{}: {} must be {}, not \"{}\"", command.name, spec.name, *expected, printable(value, 60)));
      }
    }
    specs[spec.name] = spec;
  }
  Invocation result{.action = Invocation::Action::kRun, .command = &command, .options = ParsedOptions(specs, given)};
  result.options.set_command_line(program.name + " " + shell_line(arguments));
  return result;
}

std::string shell_line(std::span<const std::string> words) {
  std::string line;
  for (const std::string& word : words) {
    line += (line.empty() ? "" : " ") + shell_word(word);
  }
  return line;
}

}  // namespace caravan::cli
