// The table of commands and options, and the one parser, help text and completion that are made from it.
//
// A command is data: what it takes stands in a CommandSpec, and nothing else knows its options.  So help, completion
// and parser cannot disagree.  Values are checked for their kind here (a number is a number, a choice is one of the
// list); whether a file exists or a model fits is the command's business.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace caravan::cli {

enum class OptionKind {
  kFlag,        // --json: given or not, no value
  kSwitch,      // --checkpoint.enable: true or false; alone it means true, --checkpoint.no-enable false
  kText,        // any text
  kInteger,     // a whole number within [minimum, maximum]
  kNumber,      // a finite decimal number
  kChoice,      // one of `choices`
  kChoiceList,  // several of `choices`, separated by commas, none twice
  kFile,        // a path of a file
  kDirectory,   // a path of a directory
};

struct OptionSpec {
  std::string name;        // "--threads"; a positional argument has a plain word that help shows: "A.safetensors"
  std::string value_name;  // "N"; empty for flags and positional arguments
  OptionKind kind = OptionKind::kFlag;
  std::string help;                // one phrase, no full stop
  std::string default_value = {};  // what the getters return when the user gave nothing; shown by help
  std::string default_note = {};   // shown instead, where the default is found out later: "all usable cores"
  std::vector<std::string> choices = {};
  bool required = false;
  bool positional = false;
  bool variadic = false;    // the last positional argument: any number of them, at least one when required
  bool repeatable = false;  // an option that may be given several times
  std::int64_t minimum = std::numeric_limits<std::int64_t>::min();  // of kInteger
  std::int64_t maximum = std::numeric_limits<std::int64_t>::max();
  std::string group = {};  // the heading that help shows it under; empty: "options"
};

// Whether a value has to follow the option's name.
bool needs_value(const OptionSpec& spec);

struct CommandSpec {
  std::string name;                        // "dump"; or of two words, "tokenizer train"
  std::string summary;                     // one phrase, for the list of commands
  std::string description;                 // a paragraph; help wraps it
  std::vector<OptionSpec> options;         // positional arguments in their order
  std::vector<std::string> examples = {};  // whole command lines
};

struct Program {
  std::string name;     // "caravan"
  std::string version;  // "0.1.0"
  std::string summary;  // a paragraph
  std::vector<CommandSpec> commands;
  std::vector<OptionSpec> common_options = {};  // taken by every command, before or after its name; none is positional
};

// What the user gave, filled up with defaults.  Names are the table's ("--threads", "A.safetensors"); asking for a name
// that the command does not have throws std::out_of_range: a bug of the command.
class ParsedOptions {
 public:
  ParsedOptions() = default;
  ParsedOptions(std::map<std::string, OptionSpec> specs, std::map<std::string, std::vector<std::string>> given);

  // Whether the user gave it; for a flag, its value.
  bool has(const std::string& name) const;
  // The value, else the default, else "".  Of a switch "true" or "false".
  std::string text(const std::string& name) const;
  std::filesystem::path path(const std::string& name) const { return text(name); }
  // The value, else the default, else nothing.
  std::optional<std::int64_t> integer(const std::string& name) const;
  std::optional<double> number(const std::string& name) const;
  // The words of a kChoiceList, in the user's order.
  std::vector<std::string> list(const std::string& name) const;
  // What a variadic argument or a repeatable option was given, in the user's order.
  std::vector<std::string> values(const std::string& name) const;

  // The command line that was read, as a shell takes it: what to type to run the same again.
  const std::string& command_line() const { return command_line_; }
  void set_command_line(const std::string& line) { command_line_ = line; }

 private:
  std::string command_line_;
  std::map<std::string, OptionSpec> specs_;
  std::map<std::string, std::vector<std::string>> given_;  // one value each but for variadic and repeatable ones
};

// What one command line asks for.
struct Invocation {
  enum class Action { kRun, kHelp, kVersion };
  Action action = Action::kRun;
  const CommandSpec* command = nullptr;  // into the Program; nullptr for the program's own help or version
  ParsedOptions options;
};

// Reads a command line without the program's name.  `--help` and `-h` win over every mistake beside them; `--version`
// is the program's; nothing at all asks for help.  `help`, `help COMMAND` and `version` are understood too.  `--name value` and `--name=value` are the same, and after `--`
// everything is positional.  A switch takes the next argument for its value only when that is "true" or "false".
// Throws InputError in one sentence: an unknown command or option (naming the nearest one), a missing or surplus
// argument, an option given twice, a value that is not of its kind.
Invocation parse(const Program& program, std::span<const std::string> arguments);

// The words as one line that a shell reads back: words with special characters are quoted.
std::string shell_line(std::span<const std::string> words);

// The text of `caravan --help` and of `caravan COMMAND --help`, at most 100 columns wide.
std::string help_text(const Program& program);
std::string help_text(const Program& program, const CommandSpec& command);

}  // namespace caravan::cli
