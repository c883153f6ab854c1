#include "caravan/cli/options.h"

#include <gtest/gtest.h>

#include <sstream>

#include "caravan/base/error.h"
#include "tests/cli/sample_program.h"

namespace caravan::cli {
namespace {

using Words = std::vector<std::string>;

const Program kProgram = sample_program();

Invocation run(const Words& words) {
  return parse(kProgram, words);
}

std::string error_of(const Words& words) {
  try {
    run(words);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Options, ReadEveryKind) {
  const Invocation call = run({"dump", "--model", "a dir", "--ids=x.json", "--what", "loss,hidden", "--dtype", "bf16",
                               "--note", "hello, world", "--threads", "3"});
  EXPECT_EQ(call.action, Invocation::Action::kRun);
  EXPECT_EQ(call.command->name, "dump");
  EXPECT_EQ(call.options.path("--model"), "a dir");
  EXPECT_EQ(call.options.path("--ids"), "x.json");
  EXPECT_EQ(call.options.list("--what"), (Words{"loss", "hidden"}));
  EXPECT_EQ(call.options.text("--dtype"), "bf16");
  EXPECT_EQ(call.options.text("--note"), "hello, world");
  EXPECT_EQ(call.options.integer("--threads"), 3);
}

TEST(Options, FillUpWithDefaults) {
  const Invocation call = run({"dump", "--model", "m"});
  EXPECT_EQ(call.options.list("--what"), (Words{"logits", "loss"}));
  EXPECT_EQ(call.options.text("--dtype"), "f32");
  EXPECT_FALSE(call.options.has("--dtype"));
  EXPECT_EQ(call.options.integer("--threads"), std::nullopt);
  EXPECT_EQ(call.options.text("--ids"), "");
  EXPECT_THROW(call.options.has("--tolerance"), std::out_of_range) << "an option of another command";
}

TEST(Options, ReadPositionalArgumentsFlagsAndNumbers) {
  const Invocation call = run({"compare", "dump", "--json", "inspect", "--tolerance", "2.5e-3"});
  EXPECT_EQ(call.options.text("A"), "dump") << "a command's name is an ordinary word after the command";
  EXPECT_EQ(call.options.text("B"), "inspect");
  EXPECT_TRUE(call.options.has("--json"));
  EXPECT_EQ(call.options.number("--tolerance"), 2.5e-3);
  EXPECT_EQ(run({"compare", "--", "--json"}).options.text("A"), "--json");
  EXPECT_EQ(run({"compare", "a", "--tolerance", "-1"}).options.number("--tolerance"), -1.0);
}

TEST(Options, ReadCommandsOfTwoWordsAndAnyNumberOfArguments) {
  const Invocation call = run({"words", "learn", "a", "--pattern", "gpt2", "b c", "--", "--threads"});
  EXPECT_EQ(call.command->name, "words learn");
  EXPECT_EQ(call.options.values("TEXTS"), (Words{"a", "b c", "--threads"}));
  EXPECT_EQ(call.options.text("TEXTS"), "a");
  EXPECT_EQ(call.options.text("--pattern"), "gpt2");
  EXPECT_EQ(run({"--threads", "2", "words", "learn", "x"}).options.integer("--threads"), 2);
  EXPECT_EQ(run({"words", "--help"}).command->name, "words learn");
  EXPECT_EQ(run({"words", "learn", "--help"}).action, Invocation::Action::kHelp);
  EXPECT_EQ(error_of({"words", "learn"}),
            "words learn: argument TEXTS is missing; caravan words learn --help shows the usage");
  EXPECT_EQ(error_of({"words", "learn", "a", ""}), "words learn: TEXTS must be the path of a file, not \"\"");
  EXPECT_EQ(error_of({"words"}), "words is followed by learn; caravan --help lists the commands");
  EXPECT_EQ(error_of({"words", "laern"}),
            "words is followed by learn, not \"laern\" (did you mean learn?); caravan --help lists the commands");
  EXPECT_EQ(error_of({"learn"}), "unknown command \"learn\"; caravan --help lists the commands");
  EXPECT_NE(help_text(kProgram, *call.command).find("usage: caravan words learn TEXTS... [options]"),
            std::string::npos);
}

TEST(Options, KeepOddValuesAsTheyAre) {
  for (const char* odd : {"[a,b]", "{}", "%%", "a=b", "'x'", "\"", "- x", "  ", "[]", "\\n"}) {
    EXPECT_EQ(run({"dump", "--model", "m", "--note", odd}).options.text("--note"), odd);
    EXPECT_EQ(run({"compare", odd}).options.text("A"), odd);
  }
  EXPECT_EQ(run({"dump", "--model", "m", "--note=--help me"}).options.text("--note"), "--help me");
  EXPECT_EQ(run({"dump", "--model", "m", "--note", ""}).options.text("--note"), "");
}

TEST(Options, TakeCommonOptionsBeforeTheCommand) {
  EXPECT_EQ(run({"--threads", "2", "dump", "--model", "m"}).options.integer("--threads"), 2);
  EXPECT_EQ(run({"--threads=2", "dump", "--model", "m"}).options.integer("--threads"), 2);
}

TEST(Options, HelpAndVersionWin) {
  EXPECT_EQ(run({}).action, Invocation::Action::kHelp);
  EXPECT_EQ(run({"-h"}).command, nullptr);
  EXPECT_EQ(run({"--threads", "2", "--version"}).action, Invocation::Action::kVersion);
  const Invocation call = run({"dump", "--modle", "--help"});
  EXPECT_EQ(call.action, Invocation::Action::kHelp);
  EXPECT_EQ(call.command->name, "dump");
}

TEST(Options, HelpAndVersionAreWordsToo) {
  EXPECT_EQ(run({"help"}).action, Invocation::Action::kHelp);
  EXPECT_EQ(run({"help"}).command, nullptr);
  EXPECT_EQ(run({"help", "dump"}).action, Invocation::Action::kHelp);
  EXPECT_EQ(run({"help", "dump"}).command->name, "dump");
  EXPECT_EQ(run({"help", "words", "learn"}).command->name, "words learn");
  EXPECT_EQ(run({"version"}).action, Invocation::Action::kVersion);
  EXPECT_EQ(error_of({"help", "dmup"}),
            "unknown command \"dmup\" (did you mean dump?); caravan --help lists the commands");
}

TEST(Options, ARepeatableOneKeepsEveryValueInOrder) {
  const Invocation call = run({"dump", "--note", "a", "--model", "m", "--note=b c", "--note", ""});
  EXPECT_EQ(call.options.values("--note"), (Words{"a", "b c", ""}));
  EXPECT_EQ(run({"dump", "--model", "m"}).options.values("--note"), Words{});
  EXPECT_NE(help_text(kProgram, *call.command).find("may be given several times"), std::string::npos);
}

TEST(Options, MistakesAreOneSentenceThatNamesTheNearest) {
  EXPECT_EQ(error_of({"dmup"}), "unknown command \"dmup\" (did you mean dump?); caravan --help lists the commands");
  EXPECT_EQ(error_of({"launch"}), "unknown command \"launch\"; caravan --help lists the commands");
  EXPECT_EQ(error_of({"--thread", "2", "dump"}),
            "unknown option --thread (did you mean --threads?); caravan --help lists the options");
  EXPECT_EQ(error_of({"dump", "--modle", "x"}),
            "dump: unknown option --modle (did you mean --model?); caravan dump --help lists the options");
  EXPECT_EQ(error_of({"compare", "a", "--jsn=1"}),
            "compare: unknown option --jsn (did you mean --json?); caravan compare --help lists the options");
  EXPECT_EQ(error_of({"dump", "-x"}), "dump: unknown option -x; caravan dump --help lists the options");
  EXPECT_EQ(error_of({"dump"}), "dump: option --model DIR is missing; caravan dump --help shows the usage");
  EXPECT_EQ(error_of({"compare"}), "compare: argument A is missing; caravan compare --help shows the usage");
  EXPECT_EQ(error_of({"compare", "a", "b", "c"}),
            "compare: \"c\" is one argument too many; caravan compare --help shows the usage");
  EXPECT_EQ(error_of({"--threads", "2"}), "no command is given; caravan --help lists the commands");
}

TEST(Options, ValuesAreChecked) {
  const auto dump = [](const std::string& name, const std::string& value) {
    return error_of({"dump", "--model", "m", name, value});
  };
  for (const char* value : {"0", "1025", "x", "3x", "", "1.5", "+3", "99999999999999999999"}) {
    EXPECT_EQ(dump("--threads", value),
              std::string("dump: --threads must be a whole number from 1 to 1024, not \"") + value + "\"");
  }
  EXPECT_EQ(dump("--dtype", "f16"), "dump: --dtype must be one of f32, bf16, f64, not \"f16\"");
  for (const char* value : {"loss,loss", "loss,", "", "loss, logits", "lossy"}) {
    EXPECT_TRUE(
        dump("--what", value).starts_with("dump: --what must be a list, without blanks or repetition, of logits,"))
        << dump("--what", value);
  }
  EXPECT_EQ(dump("--ids", ""), "dump: --ids must be the path of a file, not \"\"");
  for (const char* value : {"nan", "inf", "1e999", "0x1p3 ", "one"}) {
    EXPECT_TRUE(error_of({"compare", "a", "--tolerance", value}).starts_with("compare: --tolerance must be a number"));
  }
  EXPECT_EQ(error_of({"dump", "--model"}), "dump: option --model needs a value: --model DIR");
  EXPECT_EQ(error_of({"dump", "--model", "--ids", "x"}), "dump: option --model needs a value: --model DIR");
  EXPECT_EQ(error_of({"dump", "--model=", "x"}), "dump: option --model needs a value: --model DIR");
  EXPECT_EQ(error_of({"--threads"}), "option --threads needs a value: --threads N");
  EXPECT_EQ(error_of({"compare", "a", "--json=yes"}), "compare: option --json takes no value");
  EXPECT_EQ(error_of({"dump", "--model", "m", "--model", "n"}), "dump: option --model is given 2 times; give it once");
  EXPECT_EQ(error_of({"--threads", "1", "dump", "--model", "m", "--threads", "1"}),
            "dump: option --threads is given 2 times; give it once");
}

TEST(Help, NamesEveryOptionWithItsChoicesAndDefault) {
  for (const CommandSpec& command : kProgram.commands) {
    const std::string text = help_text(kProgram, command);
    for (const auto* table : {&command.options, &kProgram.common_options}) {
      for (const OptionSpec& option : *table) {
        EXPECT_NE(text.find("\n  " + option.name), std::string::npos) << command.name << option.name;
        for (const std::string& choice : option.choices) {
          EXPECT_NE(text.find(choice), std::string::npos);
        }
      }
    }
    for (const std::string& example : command.examples) {
      EXPECT_NE(text.find(example), std::string::npos);
    }
    EXPECT_NE(help_text(kProgram).find("\n  " + command.name), std::string::npos);
    EXPECT_NE(help_text(kProgram).find(command.summary), std::string::npos);
  }
}

TEST(Help, LooksLikeThis) {
  EXPECT_EQ(help_text(kProgram, kProgram.commands[1]),
            R"(usage: caravan compare A [B] [options]

Compares two files.

arguments:
  A  a dump
  B  another dump

options:
  --tolerance X  relative tolerance (default: 1e-4)
  --json         print JSON

common options:
  --threads N  how many threads compute (default: the cores this process may use)
  -h, --help   print this
)");
}

TEST(Help, StaysWithinAHundredColumns) {
  for (const CommandSpec& command : kProgram.commands) {
    std::istringstream lines(help_text(kProgram, command));
    for (std::string line; std::getline(lines, line);) {
      EXPECT_LE(line.size(), 100U) << line;
    }
  }
}

}  // namespace
}  // namespace caravan::cli
