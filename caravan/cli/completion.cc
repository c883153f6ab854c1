#include "caravan/cli/completion.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "caravan/base/error.h"

namespace caravan::cli {

namespace {

std::string replace_all(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

// One word of a POSIX shell, whatever `text` holds.
std::string quoted(const std::string& text) {
  return fmt::format("'{}'", replace_all(text, "'", "'\\''"));
}

std::vector<OptionSpec> named_options(const Program& program, const CommandSpec& command) {
  std::vector<OptionSpec> named;
  for (const auto* table : {&command.options, &program.common_options}) {
    for (const OptionSpec& spec : *table) {
      if (!spec.positional) {
        named.push_back(spec);
      }
    }
  }
  return named;
}

std::vector<OptionSpec> positional_options(const CommandSpec& command) {
  std::vector<OptionSpec> positional;
  for (const OptionSpec& spec : command.options) {
    if (spec.positional) {
      positional.push_back(spec);
    }
  }
  return positional;
}

// The first word of a command's name, and the second or "".
std::pair<std::string, std::string> words_of(const CommandSpec& command) {
  const std::size_t space = command.name.find(' ');
  return space == std::string::npos ? std::pair(command.name, std::string())
                                    : std::pair(command.name.substr(0, space), command.name.substr(space + 1));
}

// The words that begin commands, in order, each with the commands of two words below it.
struct FirstWord {
  std::string word;
  std::vector<const CommandSpec*> commands;  // one of this name, or those of two words
  bool group = false;
};

std::vector<FirstWord> first_words(const Program& program) {
  std::vector<FirstWord> words;
  for (const CommandSpec& command : program.commands) {
    const auto [first, second] = words_of(command);
    const auto same = std::find_if(words.begin(), words.end(), [&](const auto& one) { return one.word == first; });
    FirstWord& entry = same == words.end() ? words.emplace_back(FirstWord{first, {}, !second.empty()}) : *same;
    entry.commands.push_back(&command);
  }
  return words;
}

std::string first_word_list(const Program& program) {
  std::string list;
  for (const FirstWord& one : first_words(program)) {
    list += (list.empty() ? "" : " ") + one.word;
  }
  return list;
}

std::string second_word_list(const FirstWord& group) {
  std::string list;
  for (const CommandSpec* command : group.commands) {
    list += (list.empty() ? "" : " ") + words_of(*command).second;
  }
  return list;
}

// --- bash

// The statement that fills COMPREPLY for a value of this option.
std::string bash_values(const OptionSpec& spec) {
  switch (spec.kind) {
    case OptionKind::kFile:
      return "_@NAME@_paths -f";
    case OptionKind::kDirectory:
      return "_@NAME@_paths -d";
    case OptionKind::kChoice:
      return fmt::format("_@NAME@_words {}", quoted(fmt::format("{}", fmt::join(spec.choices, " "))));
    case OptionKind::kChoiceList:
      return fmt::format("_@NAME@_list {}", quoted(fmt::format("{}", fmt::join(spec.choices, " "))));
    default:
      return ":";
  }
}

// Every named option of a command, --help included.
std::string bash_option_names(const Program& program, const CommandSpec& command) {
  std::string names;
  for (const OptionSpec& spec : named_options(program, command)) {
    names += spec.name + " ";
  }
  return names + "--help";
}

std::string bash_value_cases(const std::string& command, const std::vector<OptionSpec>& options) {
  std::string text;
  for (const OptionSpec& spec : options) {
    if (needs_value(spec)) {
      text += fmt::format("    {}) {}; return ;;\n", quoted(command + spec.name), bash_values(spec));
    }
  }
  return text;
}

// Words of the line before the cursor are walked once: the command, how many positional arguments have passed, and
// whether a value is due.  `--name=value` reaches bash as three words, since "=" breaks words there.
constexpr const char* kBashTop = R"(# bash completion of @NAME@; made by `@NAME@ completion bash`.
_@NAME@_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current"); }
_@NAME@_paths() {
  mapfile -t COMPREPLY < <(compgen "$1" -- "$current")
  compopt -o filenames 2>/dev/null
}
_@NAME@_list() {
  local before="" word
  if [[ $current == *,* ]]; then before=${current%,*},; fi
  mapfile -t COMPREPLY < <(for word in $1; do
    if [[ ,$before != *,$word,* && $word == "${current##*,}"* ]]; then echo "$before$word"; fi
  done)
  compopt -o nospace 2>/dev/null
}
_@NAME@() {
  local current=${COMP_WORDS[COMP_CWORD]} command="" due="" count=0 only_arguments="" i word
  local groups="@GROUPS@"
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; ++i)); do
    word=${COMP_WORDS[i]}
    if [[ $word == "=" ]]; then continue; fi
    if [[ -n $due ]]; then due=""; continue; fi
    if [[ -n $command && $word == "--" ]]; then only_arguments=1; continue; fi
    if [[ -z $only_arguments && $word == -* ]]; then
      case "$command$word" in
@VALUED@        *) ;;
      esac
    elif [[ -z $command ]]; then
      command=$word
    elif [[ " $groups " == *" $command "* ]]; then
      command="$command $word"
    else
      ((++count))
    fi
  done
  if [[ -n $due && $current == "=" ]]; then current=""; fi
  case "$command$due" in
@VALUES@  esac
  if [[ -n $due ]]; then return; fi
  if [[ -z $command ]]; then
    _@NAME@_words "@COMMANDS@ @TOP@"
    return
  fi
  if [[ -z $only_arguments && $current == -* ]]; then
    case "$command" in
@OPTIONS@    esac
    return
  fi
  case "$command $count" in
@ARGUMENTS@  esac
}
complete -F _@NAME@ @NAME@
)";

std::string bash_script(const Program& program) {
  std::string valued, values, options, arguments, top;
  const auto add_valued = [&](const std::string& command, const std::vector<OptionSpec>& specs) {
    for (const OptionSpec& spec : specs) {
      if (needs_value(spec)) {
        valued += fmt::format("        {}) due=$word ;;\n", quoted(command + spec.name));
      }
    }
    values += bash_value_cases(command, specs);
  };
  add_valued("", program.common_options);
  for (const OptionSpec& spec : program.common_options) {
    top += spec.name + " ";
  }
  for (const CommandSpec& command : program.commands) {
    add_valued(command.name, named_options(program, command));
    options += fmt::format("      {}) _@NAME@_words {} ;;\n", quoted(command.name),
                           quoted(bash_option_names(program, command)));
    int place = 0;
    for (const OptionSpec& spec : positional_options(command)) {
      const std::string which =
          spec.variadic ? fmt::format("'{} '*", command.name) : fmt::format("'{} {}'", command.name, place++);
      arguments += fmt::format("    {}) {} ;;\n", which, bash_values(spec));
    }
  }
  std::string groups;
  for (const FirstWord& one : first_words(program)) {
    if (one.group) {
      groups += (groups.empty() ? "" : " ") + one.word;
      arguments += fmt::format("    '{} 0') _@NAME@_words {} ;;\n", one.word, quoted(second_word_list(one)));
    }
  }
  std::string text = kBashTop;
  text = replace_all(text, "@VALUED@", valued);
  text = replace_all(text, "@VALUES@", values);
  text = replace_all(text, "@OPTIONS@", options);
  text = replace_all(text, "@ARGUMENTS@", arguments);
  text = replace_all(text, "@GROUPS@", groups);
  text = replace_all(text, "@COMMANDS@", first_word_list(program));
  text = replace_all(text, "@TOP@", top + "--version --help");
  return replace_all(text, "@NAME@", program.name);
}

// --- zsh

// A piece of an _arguments specification: colons and brackets have a meaning there.
std::string zsh_escaped(const std::string& text) {
  std::string escaped;
  for (const char letter : text) {
    if (letter == ':' || letter == '[' || letter == ']' || letter == '\\') {
      escaped += '\\';
    }
    escaped += letter;
  }
  return escaped;
}

// ":MESSAGE:ACTION" for the value of this option.
std::string zsh_action(const OptionSpec& spec) {
  const std::string message = zsh_escaped(spec.positional ? spec.name : spec.value_name);
  switch (spec.kind) {
    case OptionKind::kFile:
      return ":" + message + ":_files";
    case OptionKind::kDirectory:
      return ":" + message + ":_files -/";
    case OptionKind::kChoice:
      return fmt::format(":{}:({})", message, fmt::join(spec.choices, " "));
    case OptionKind::kChoiceList:
      return fmt::format(":{}:_values -s , {} {}", message, message, fmt::join(spec.choices, " "));
    default:
      return ":" + message + ":";
  }
}

std::string zsh_option(const OptionSpec& spec) {
  const bool flag = !needs_value(spec);
  return quoted(fmt::format("{}{}{}[{}]{}", spec.repeatable ? "*" : "", spec.name, flag ? "" : "=",
                            zsh_escaped(spec.help), flag ? "" : zsh_action(spec)));
}

// The _arguments call of one command, indented.
std::string zsh_arguments(const Program& program, const CommandSpec& command, const std::string& indent) {
  std::string text = indent + "_arguments \\\n";
  for (const OptionSpec& spec : named_options(program, command)) {
    text += fmt::format("{}  {} \\\n", indent, zsh_option(spec));
  }
  int place = 1;
  for (const OptionSpec& spec : positional_options(command)) {
    const std::string which = spec.variadic ? "*" : std::to_string(place++);
    text += fmt::format("{}  {} \\\n", indent, quoted(which + zsh_action(spec)));
  }
  return text + fmt::format("{}  {}\n", indent, quoted("(- *)--help[print the help]"));
}

// The second word, and then the arguments of the command it makes.
std::string zsh_group(const Program& program, const FirstWord& group) {
  std::string text = "          if (( CURRENT == 2 )); then\n            local -a commands\n            commands=(";
  for (const CommandSpec* command : group.commands) {
    text += " " + quoted(zsh_escaped(words_of(*command).second) + ":" + zsh_escaped(command->summary));
  }
  text += " )\n            _describe -t commands command commands\n          else\n";
  text += "            shift words\n            (( --CURRENT ))\n            case $words[1] in\n";
  for (const CommandSpec* command : group.commands) {
    text += fmt::format("              {})\n{}                ;;\n", words_of(*command).second,
                        zsh_arguments(program, *command, std::string(16, ' ')));
  }
  return text + "            esac\n          fi\n";
}

std::string zsh_script(const Program& program) {
  const std::string help = quoted("(- *)--help[print the help]");
  std::string text =
      fmt::format("#compdef {0}\n# zsh completion of {0}; made by `{0} completion zsh`.\n", program.name);
  text += fmt::format("_{}() {{\n  local curcontext=$curcontext state line\n  typeset -A opt_args\n", program.name);
  text += "  local -a commands\n  commands=(\n";
  for (const FirstWord& one : first_words(program)) {
    text += fmt::format("    {}\n", quoted(zsh_escaped(one.word) + ":" + zsh_escaped(one.commands[0]->summary)));
  }
  text += "  )\n  _arguments -C \\\n";
  for (const OptionSpec& spec : program.common_options) {
    text += fmt::format("    {} \\\n", zsh_option(spec));
  }
  text += fmt::format("    {} \\\n    {} \\\n", quoted("(- *)--version[print the version]"), help);
  text += "    '1:command:->command' \\\n    '*::argument:->rest'\n";
  text +=
      "  case $state in\n    command) _describe -t commands command commands ;;\n    rest)\n      case $words[1] in\n";
  for (const FirstWord& one : first_words(program)) {
    text += fmt::format("        {})\n", one.word);
    text += one.group ? zsh_group(program, one) : zsh_arguments(program, *one.commands[0], std::string(10, ' '));
    text += "          ;;\n";
  }
  text += "      esac\n      ;;\n  esac\n}\n";
  // Stored in $fpath the file's text is the function's body; sourced it has to register itself.
  return text + fmt::format("if [[ ${{funcstack[1]}} == _{0} ]]; then\n  _{0} \"$@\"\nelse\n  compdef _{0} {0}\nfi\n",
                            program.name);
}

// --- fish

std::string fish_quoted(const std::string& text) {
  return fmt::format("'{}'", replace_all(replace_all(text, "\\", "\\\\"), "'", "\\'"));
}

// The flags of fish's `complete` that say what the value of this option is.
std::string fish_values(const OptionSpec& spec) {
  const std::string words = fmt::format("{}", fmt::join(spec.choices, " "));
  const std::string required = spec.positional ? "" : " -r";
  switch (spec.kind) {
    case OptionKind::kFlag:
    case OptionKind::kSwitch:
      return "";
    case OptionKind::kFile:
      return required + " -F";
    case OptionKind::kDirectory:
      return required + " -f -a '(__fish_complete_directories)'";
    case OptionKind::kChoice:
      return required + " -f -a " + fish_quoted(words);
    case OptionKind::kChoiceList:
      return required + " -f -a " + fish_quoted("(__fish_append , " + words + ")");
    default:
      return required + " -f";
  }
}

std::string fish_option(const Program& program, const OptionSpec& spec, const std::string& condition) {
  return fmt::format("complete -c {} -n {} -l {}{} -d {}\n", program.name, fish_quoted(condition), spec.name.substr(2),
                     fish_values(spec), fish_quoted(spec.help));
}

std::string fish_script(const Program& program) {
  const std::string& name = program.name;
  const std::string no_command = "not __fish_seen_subcommand_from " + first_word_list(program);
  std::string text =
      fmt::format("# fish completion of {0}; made by `{0} completion fish`.\ncomplete -c {0} -f\n", name);
  text += fmt::format("complete -c {} -n {} -l version -d 'print the version'\n", name, fish_quoted(no_command));
  text += fmt::format("complete -c {} -s h -l help -d 'print the help'\n", name);
  for (const OptionSpec& spec : program.common_options) {
    text += fish_option(program, spec, no_command);
  }
  for (const FirstWord& one : first_words(program)) {
    text += fmt::format("complete -c {} -n {} -a {} -d {}\n", name, fish_quoted(no_command), one.word,
                        fish_quoted(one.commands[0]->summary));
    const std::string open = fmt::format("__fish_seen_subcommand_from {}; and not __fish_seen_subcommand_from {}",
                                         one.word, second_word_list(one));
    for (const CommandSpec* command : one.group ? one.commands : std::vector<const CommandSpec*>{}) {
      text += fmt::format("complete -c {} -n {} -a {} -d {}\n", name, fish_quoted(open), words_of(*command).second,
                          fish_quoted(command->summary));
    }
  }
  for (const CommandSpec& command : program.commands) {
    const auto [first, second] = words_of(command);
    const std::string seen =
        "__fish_seen_subcommand_from " + first + (second.empty() ? "" : "; and __fish_seen_subcommand_from " + second);
    for (const OptionSpec& spec : named_options(program, command)) {
      text += fish_option(program, spec, seen);
    }
    for (const OptionSpec& spec : positional_options(command)) {
      const std::string values = fish_values(spec);
      if (values != " -f") {
        text += fmt::format("complete -c {} -n {}{} -d {}\n", name, fish_quoted(seen), values, fish_quoted(spec.help));
      }
    }
  }
  return text;
}

}  // namespace

CommandSpec completion_command() {
  return {.name = "completion",
          .summary = "print a completion script for a shell",
          .description =
              "Prints a script that teaches the shell this program's commands, options and their values.  "
              "Source it, or store it where the shell looks for completions.",
          .options = {{.name = "SHELL",
                       .value_name = "",
                       .kind = OptionKind::kChoice,
                       .help = "the shell",
                       .choices = {"bash", "zsh", "fish"},
                       .required = true,
                       .positional = true}},
          .examples = {"source <(caravan completion bash)", "caravan completion zsh > ~/.zfunc/_caravan",
                       "caravan completion fish > ~/.config/fish/completions/caravan.fish"}};
}

std::string completion_script(const Program& program, const std::string& shell) {
  if (shell == "bash") {
    return bash_script(program);
  }
  if (shell == "zsh") {
    return zsh_script(program);
  }
  if (shell == "fish") {
    return fish_script(program);
  }
  throw InputError(fmt::format("completion: \"{}\" is not one of bash, zsh, fish", shell));
}

}  // namespace caravan::cli
