#include "caravan/cli/completion.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "caravan/base/error.h"
#include "tests/cli/sample_program.h"

namespace caravan::cli {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

const Program kProgram = sample_program();

// What the shell command prints, standard error included; a failing status is appended.
std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  std::array<char, 4096> buffer;
  while (const std::size_t count = fread(buffer.data(), 1, buffer.size(), pipe)) {
    text.append(buffer.data(), count);
  }
  const int status = pclose(pipe);
  return status == 0 ? text : text + "(status " + std::to_string(status) + ")";
}

bool installed(const std::string& shell) {
  return output_of("command -v " + shell).ends_with(shell + "\n");
}

class Completion : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "caravan_completion_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    fs::create_directory(folder_ / "model dir");
    std::ofstream(folder_ / "model.json") << "x";
    for (const char* shell : {"bash", "zsh", "fish"}) {
      std::ofstream(folder_ / shell) << completion_script(kProgram, shell);
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  // Runs `script` by `shell` inside the folder, where the completion scripts lie under the shells' names.
  std::string run(const std::string& shell, const std::string& script) const {
    std::ofstream(folder_ / "script") << script;
    return output_of("cd '" + folder_.string() + "' && " + shell + " script");
  }

  // What bash offers for a line of these words, the last of which is being typed; sorted.
  Words bash(const Words& words) const {
    std::string script = "set -u\nsource ./bash\nCOMP_WORDS=(";
    for (const std::string& word : words) {
      script += "'" + word + "' ";
    }
    script += ")\nCOMP_CWORD=" + std::to_string(words.size() - 1) + "\n_caravan\n" +
              "for word in \"${COMPREPLY[@]+\"${COMPREPLY[@]}\"}\"; do echo \"$word\"; done\n";
    std::istringstream lines(run("bash", script));
    Words offered;
    for (std::string line; std::getline(lines, line);) {
      offered.push_back(line);
    }
    std::sort(offered.begin(), offered.end());
    return offered;
  }

  fs::path folder_;
};

TEST_F(Completion, NamesEveryOptionCommandAndChoiceInEveryShell) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = completion_script(kProgram, shell);
    const auto named = [&](const std::string& word) { return script.find(word) != std::string::npos; };
    for (const CommandSpec& command : kProgram.commands) {
      const std::size_t space = command.name.find(' ');
      EXPECT_TRUE(named(command.name.substr(0, space))) << shell;
      EXPECT_TRUE(named(command.name.substr(space + 1))) << shell;
      for (const auto* table : {&command.options, &kProgram.common_options}) {
        for (const OptionSpec& option : *table) {
          const bool fish = shell == std::string("fish") && !option.positional;
          EXPECT_TRUE(option.positional || named(fish ? "-l " + option.name.substr(2) : option.name))
              << shell << " " << option.name;
          for (const std::string& choice : option.choices) {
            EXPECT_TRUE(named(choice)) << shell << " " << choice;
          }
        }
      }
    }
  }
  EXPECT_THROW(completion_script(kProgram, "tcsh"), InputError);
}

TEST_F(Completion, BashOffersCommandsAndOptions) {
  EXPECT_EQ(bash({"caravan", "com"}), (Words{"compare", "completion"}));
  EXPECT_EQ(bash({"caravan", "--"}), (Words{"--help", "--threads", "--version"}));
  EXPECT_EQ(bash({"caravan", "--threads", "2", "d"}), (Words{"dump"}));
  EXPECT_EQ(bash({"caravan", "compare", "x", "--"}), (Words{"--help", "--json", "--threads", "--tolerance"}));
  EXPECT_EQ(bash({"caravan", "dump", "--m"}), (Words{"--model"}));
  EXPECT_EQ(bash({"caravan", "--threads", ""}), Words{});
  EXPECT_EQ(bash({"caravan", "nonsense", "--"}), Words{});
}

TEST_F(Completion, BashKnowsCommandsOfTwoWords) {
  EXPECT_EQ(bash({"caravan", "w"}), (Words{"words"}));
  EXPECT_EQ(bash({"caravan", "words", ""}), (Words{"learn"}));
  EXPECT_EQ(bash({"caravan", "words", "learn", "--p"}), (Words{"--pattern"}));
  EXPECT_EQ(bash({"caravan", "words", "learn", "--pattern", ""}), (Words{"gpt2", "llama3"}));
  EXPECT_EQ(bash({"caravan", "--threads", "2", "words", "learn", "mod"}), (Words{"model dir", "model.json"}));
  EXPECT_EQ(bash({"caravan", "words", "learn", "a", "b", "c", "mod"}), (Words{"model dir", "model.json"}));
}

TEST_F(Completion, BashOffersChoices) {
  EXPECT_EQ(bash({"caravan", "dump", "--dtype", ""}), (Words{"bf16", "f32", "f64"}));
  EXPECT_EQ(bash({"caravan", "dump", "--dtype", "f"}), (Words{"f32", "f64"}));
  EXPECT_EQ(bash({"caravan", "dump", "--dtype", "="}), (Words{"bf16", "f32", "f64"}));
  EXPECT_EQ(bash({"caravan", "dump", "--dtype", "=", "b"}), (Words{"bf16"}));
  EXPECT_EQ(bash({"caravan", "dump", "--what", "l"}), (Words{"logits", "loss"}));
  EXPECT_EQ(bash({"caravan", "dump", "--what", "loss,"}), (Words{"loss,hidden", "loss,logits"}));
  EXPECT_EQ(bash({"caravan", "dump", "--what", "loss,hidden,l"}), (Words{"loss,hidden,logits"}));
  EXPECT_EQ(bash({"caravan", "dump", "--note", ""}), Words{});
  EXPECT_EQ(bash({"caravan", "completion", ""}), (Words{"bash", "fish", "zsh"}));
  EXPECT_EQ(bash({"caravan", "completion", "bash", ""}), Words{});
}

TEST_F(Completion, BashOffersFilesAndDirectories) {
  EXPECT_EQ(bash({"caravan", "dump", "--ids", "mod"}), (Words{"model dir", "model.json"}));
  EXPECT_EQ(bash({"caravan", "dump", "--model", "mod"}), (Words{"model dir"}));
  EXPECT_EQ(bash({"caravan", "compare", "mod"}), (Words{"model dir", "model.json"}));
  EXPECT_EQ(bash({"caravan", "compare", "--tolerance", "1", "a", "mod"}), (Words{"model dir", "model.json"}));
  EXPECT_EQ(bash({"caravan", "compare", "a", "b", "mod"}), Words{});
  EXPECT_EQ(bash({"caravan", "compare", "--", "mod"}), (Words{"model dir", "model.json"}));
}

TEST_F(Completion, ZshTakesTheScript) {
  if (!installed("zsh")) {
    GTEST_SKIP() << "zsh is not installed";
  }
  EXPECT_EQ(run("zsh -f", "zsh -n ./zsh\n"), "");
  // Whatever the completion system would be asked for arrives here as words.
  const std::string stubs =
      "compdef() { print registered $2 }\n_describe() { print -rl -- ${(P)4} }\n"
      "_arguments() { if [[ $1 == -C ]]; then state=$want; fi; print -rl -- \"$@\" }\nsource ./zsh\n";
  EXPECT_EQ(run("zsh -f", stubs), "registered caravan\n");
  const std::string commands = run("zsh -f", stubs + "want=command\n_caravan\n");
  EXPECT_NE(commands.find("\ndump:write logits, hidden states\\: what a model computes\n"), std::string::npos)
      << commands;
  EXPECT_NE(commands.find("\nwords:learn words\n"), std::string::npos) << commands;
  const std::string second = run("zsh -f", stubs + "want=rest\nwords=(words '')\nCURRENT=2\n_caravan\n");
  EXPECT_NE(second.find("\nlearn:learn words\n"), std::string::npos) << second;
  const std::string third = run("zsh -f", stubs + "want=rest\nwords=(words learn '')\nCURRENT=3\n_caravan\n");
  EXPECT_NE(third.find("\n*:TEXTS:_files\n"), std::string::npos) << third;
  const std::string rest = run("zsh -f", stubs + "want=rest\nwords=(dump)\n_caravan\n");
  EXPECT_NE(rest.find("\n--model=[a model's folder]:DIR:_files -/\n"), std::string::npos) << rest;
  EXPECT_NE(rest.find("\n--ids=[id lists, as JSON \\[\\[1, 2\\]\\]]:FILE:_files\n"), std::string::npos) << rest;
  EXPECT_NE(rest.find("\n--dtype=[type to compute in]:TYPE:(f32 bf16 f64)\n"), std::string::npos) << rest;
  EXPECT_NE(rest.find("\n--what=[what to write]:LIST:_values -s , LIST logits hidden loss\n"), std::string::npos)
      << rest;
}

TEST_F(Completion, FishOffersCommandsOptionsAndChoices) {
  if (!installed("fish")) {
    GTEST_SKIP() << "fish is not installed";
  }
  EXPECT_EQ(run("fish --no-config", "fish -n ./fish\n"), "");
  const auto offered = [&](const std::string& line) {
    return run("fish --no-config", "source ./fish\ncomplete -C '" + line + "'\n");
  };
  EXPECT_EQ(offered("caravan com"),
            "compare\tlay two dumps side by side\ncompletion\tprint a completion script for a shell\n");
  EXPECT_EQ(offered("caravan dump --dtype f"), "f32\ttype to compute in\nf64\ttype to compute in\n");
  EXPECT_EQ(offered("caravan dump --mo"), "--model\ta model's folder\n");
  EXPECT_NE(offered("caravan dump --no").find("the user's own 'words'"), std::string::npos);
  EXPECT_NE(offered("caravan dump --what loss,h").find("loss,hidden"), std::string::npos);
  EXPECT_NE(offered("caravan dump --model mod").find("model dir/"), std::string::npos);
  EXPECT_EQ(offered("caravan dump --model mod").find("model.json"), std::string::npos);
  EXPECT_NE(offered("caravan compare mod").find("model.json"), std::string::npos);
  EXPECT_NE(offered("caravan completion ").find("zsh"), std::string::npos);
  EXPECT_EQ(offered("caravan words le"), "learn\tlearn words\n");
  EXPECT_NE(offered("caravan words learn --pattern g").find("gpt2"), std::string::npos);
  EXPECT_NE(offered("caravan words learn mod").find("model.json"), std::string::npos);
  EXPECT_EQ(offered("caravan dump --json").find("print JSON"), std::string::npos) << "an option of another command";
}

}  // namespace
}  // namespace caravan::cli
