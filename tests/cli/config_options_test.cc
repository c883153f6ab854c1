#include "caravan/cli/config_options.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "caravan/base/error.h"
#include "caravan/cli/completion.h"
#include "caravan/train/config_keys.h"
#include "tests/support/scratch.h"

namespace caravan::cli {
namespace {

using Words = std::vector<std::string>;

// A program with one command that takes a configuration.
Program trainer() {
  return {.name = "caravan",
          .version = "1.2.3",
          .summary = "",
          .commands = {{.name = "train", .summary = "train", .description = "Trains.", .options = config_options()}},
          .common_options = {{.name = "--threads",
                              .value_name = "N",
                              .kind = OptionKind::kInteger,
                              .help = "threads",
                              .default_note = "all"}}};
}

train::Config config_of(Words words) {
  words.insert(words.begin(), "train");
  const Program program = trainer();
  return read_config(parse(program, words).options);
}

std::string error_of(const Words& words) {
  return test::message_of<Error>([&] { config_of(words); });
}

TEST(ConfigOptions, AreTheDefaultsWhenNothingIsGiven) {
  EXPECT_EQ(config_of({}), train::Config{});
}

TEST(ConfigOptions, LetFlagsWinOverTheFileAndTheFileOverDefaults) {
  const test::ScratchDirectory scratch;
  const std::string file = (scratch.path() / "run.toml").string();
  test::write_file(file, "[training]\nsteps = 7\nseq_len = 64\n[checkpoint]\nenable = false\n");
  train::Config expected;
  expected.training.steps = 7;
  expected.training.seq_len = 128;
  expected.checkpoint.enable = true;
  expected.checkpoint.load_step = -1;
  expected.sampling.prompts = {"a", "b c"};
  expected.optimizer.lr = 0.25;
  EXPECT_EQ(config_of({file, "--training.seq_len", "128", "--checkpoint.enable", "--checkpoint.load_step", "-1",
                       "--sampling.prompts=a,b c", "--lr", "0.25"}),
            expected);
  EXPECT_EQ(config_of({"--checkpoint.enable", file}).training.steps, 7);
}

TEST(ConfigOptions, TakeSwitchesInEverySpelling) {
  const auto enable = [](const Words& words) { return config_of(words).checkpoint.enable; };
  EXPECT_TRUE(enable({"--checkpoint.enable"}));
  EXPECT_TRUE(enable({"--checkpoint.enable=true"}));
  EXPECT_TRUE(enable({"--checkpoint.enable", "true"}));
  EXPECT_FALSE(enable({"--checkpoint.enable=false"}));
  EXPECT_FALSE(enable({"--checkpoint.enable", "false"}));
  EXPECT_FALSE(enable({"--checkpoint.no-enable"}));
  EXPECT_TRUE(config_of({"--validation.enable", "--steps", "3"}).validation.enable);
  EXPECT_EQ(config_of({"--validation.enable", "--steps", "3"}).training.steps, 3);
  EXPECT_EQ(config_of({"--model.no-tie_word_embeddings"}).model.tie_word_embeddings, false);
  // What stands behind an option that needs a value is that value.
  EXPECT_EQ(config_of({"--job.description", "false"}).job.description, "false");
  EXPECT_EQ(error_of({"--checkpoint.enable=yes"}), "train: --checkpoint.enable must be true or false, not \"yes\"");
  EXPECT_EQ(error_of({"--checkpoint.enable", "--checkpoint.no-enable"}),
            "train: option --checkpoint.enable is given 2 times; give it once");
  EXPECT_EQ(error_of({"--checkpoint.no-interval", "3"}).find("train: unknown option --checkpoint.no-interval"), 0u);
}

TEST(ConfigOptions, KnowThePlainNames) {
  train::Config expected;
  expected.model.hidden_size = 64;
  expected.model.num_hidden_layers = 2;
  expected.training.local_batch_size = 4;
  expected.training.epochs = 3;
  expected.training.dataset_path = {"a.txt", "b.txt"};
  expected.job.dump_folder = "out";
  expected.training.threads = 2;
  EXPECT_EQ(config_of({"--hidden_size", "64", "--num_layers=2", "--batch_size", "4", "--epochs", "3", "--data",
                       "a.txt,b.txt", "--output_dir", "out", "--threads", "2"}),
            expected);
}

TEST(ConfigOptions, AreToldInOneSentenceWhatIsWrong) {
  EXPECT_EQ(
      error_of({"--training.seqlen", "3"}),
      "train: unknown option --training.seqlen (did you mean --training.seq_len?); caravan train --help lists the "
      "options");
  EXPECT_EQ(error_of({"--training.steps", "ten"}),
            "--training.steps: expected a whole number, at least 1 and at most 1000000000000, found the text \"ten\"");
  EXPECT_EQ(error_of({"--lr_scheduler.decay_type", "exp"}),
            "train: --lr_scheduler.decay_type must be one of linear, sqrt, cosine, not \"exp\"");
  EXPECT_EQ(error_of({"--training.steps", "1", "--steps", "2"}),
            "options --training.steps and --steps are the same; give one");
  EXPECT_EQ(error_of({"--threads", "1", "--training.threads", "2"}),
            "options --threads and --training.threads are the same; give one");
  EXPECT_EQ(error_of({"a.toml", "b.toml"}),
            "train: \"b.toml\" is one argument too many; caravan train --help shows the usage");
  EXPECT_NE(error_of({"nowhere.toml"}).find("nowhere.toml"), std::string::npos);
  EXPECT_EQ(error_of({"--training.steps"}), "train: option --training.steps needs a value: --training.steps INTEGER");
}

TEST(ConfigOptions, HelpListsEachKeyWithTypeDefaultAndPhraseUnderItsSection) {
  const Program program = trainer();
  const std::string help = help_text(program, program.commands[0]);
  std::string section;
  std::size_t place = 0;
  for (const train::ConfigKey& key : train::config_keys()) {
    const std::string of_key = key.name.substr(0, key.name.find('.'));
    if (of_key != section) {
      section = of_key;
      const std::size_t title = help.find("\n\n[" + section + "]:\n");
      ASSERT_NE(title, std::string::npos) << section;
      EXPECT_GT(title, place);
    }
    const std::size_t here = help.find("\n  --" + key.name + " ");
    ASSERT_NE(here, std::string::npos) << key.name;
    EXPECT_GT(here, place) << key.name;
    place = here;
  }
  EXPECT_NE(help.find("--training.seq_len INTEGER"), std::string::npos);
  EXPECT_NE(help.find("(default: 2048)"), std::string::npos);
  EXPECT_NE(help.find("\n\nplain names:\n"), std::string::npos);
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 100u) << line;
  }
}

TEST(ConfigOptions, CompleteInEveryShell) {
  const Program program = trainer();
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = completion_script(program, shell);
    EXPECT_NE(script.find("training.seq_len"), std::string::npos) << shell;
    EXPECT_NE(script.find("linear sqrt cosine"), std::string::npos) << shell;
  }
}

}  // namespace
}  // namespace caravan::cli
