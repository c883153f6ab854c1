// What `caravan train` must refuse, in one sentence that names the mistake, and what it must leave alone.
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "caravan/base/directory.h"
#include "caravan/base/error.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "tests/train/train_run.h"

namespace caravan::train {
namespace {

TEST_F(TrainRun, LeavesARunningRunsFilesAlone) {
  run(config_);
  checkpoint::CheckpointStore other({folder() / "checkpoint"});
  other.prepare();
  const std::string saved = test::read_file(folder() / "config.toml");
  config_.training.steps = 8;
  EXPECT_NE(test::message_of<FileError>([&] { run(config_); }).find("another run"), std::string::npos);
  EXPECT_EQ(test::read_file(folder() / "config.toml"), saved);
}

// Without checkpoints too: two runs would write the lines of one metrics.jsonl.
TEST_F(TrainRun, RefusesAFolderThatAnotherRunWritesInto) {
  config_.checkpoint.enable = false;
  run(config_);
  const std::string saved = test::read_file(folder() / "config.toml");
  std::optional<DirectoryLock> other = DirectoryLock::take(folder());
  ASSERT_TRUE(other);
  config_.training.steps = 8;
  for (const bool checkpoints : {false, true}) {
    config_.checkpoint.enable = checkpoints;
    const std::string message = test::message_of<FileError>([&] { run(config_); });
    EXPECT_EQ(message, folder().string() +
                           ": another run writes into this folder; end it or choose another "
                           "job.dump_folder");
  }
  EXPECT_EQ(test::read_file(folder() / "config.toml"), saved);
  other.reset();
  config_.checkpoint.folder = ".";  // one folder, which is not locked twice
  EXPECT_EQ(run(config_).summary.step, 8);
}

TEST_F(TrainRun, TellsWhatInitialLoadPathShouldHaveBeen) {
  run(config_);
  Config second = config_;
  second.job.dump_folder = folder("second").string();
  second.checkpoint.initial_load_path = (folder() / "checkpoint").string();
  EXPECT_NE(test::message_of<ConfigError>([&] { run(second); }).find("step-6"), std::string::npos);
  second.checkpoint.initial_load_path = folder().string();
  EXPECT_NE(test::message_of<ConfigError>([&] { run(second); }).find("step-6"), std::string::npos);
  second.checkpoint.initial_load_path = (folder() / "model").string();
  EXPECT_NE(test::message_of<ConfigError>([&] { run(second); }).find("initial_load_in_hf"), std::string::npos);
}

TEST_F(TrainRun, RefusesACheckpointOfAnotherModel) {
  run(config_);
  config_.model.intermediate_size = 96;
  const std::string message = test::message_of<ConfigError>([&] { run(config_); });
  EXPECT_NE(message.find("of another model"), std::string::npos) << message;
}

// Matrices of four heads of 8 and of two heads of 16 have the same shapes.
TEST_F(TrainRun, RefusesACheckpointWithOtherHeadsAndWarnsOfAnotherRope) {
  run(config_);
  Config theta = config_;
  theta.training.steps = 7;
  theta.model.rope_theta = 500.0;
  EXPECT_NE(run(theta).out.find("warning: the model's rope_theta was 10000.0 and is 500.0 now"), std::string::npos);
  config_.training.steps = 8;
  config_.model.num_attention_heads = 2;
  config_.model.num_key_value_heads = 1;
  config_.model.head_dim = 16;
  const std::string message = test::message_of<ConfigError>([&] { run(config_); });
  EXPECT_NE(message.find("num_attention_heads was 4, here it is 2"), std::string::npos) << message;
}

struct Mistake {
  const char* name;
  std::function<void(Config&, const fs::path& scratch)> make;
  const char* expected;  // part of the sentence
};

class TrainMistakes : public TrainRun, public testing::WithParamInterface<Mistake> {};

TEST_P(TrainMistakes, AreRefusedInOneSentenceBeforeTheFirstStep) {
  GetParam().make(config_, scratch_.path());
  const std::string message = test::message_of<Error>([&] { run(config_); });
  EXPECT_NE(message.find(GetParam().expected), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(folder() / "metrics.jsonl"));
}

INSTANTIATE_TEST_SUITE_P(
    Train, TrainMistakes,
    testing::Values(
        Mistake{"NoData", [](Config& c, const fs::path&) { c.training.dataset_path.clear(); }, "dataset_path"},
        Mistake{"MissingData", [](Config& c, const fs::path&) { c.training.dataset_path = {"/nowhere/at/all"}; },
                "/nowhere/at/all"},
        Mistake{"EmptyData",
                [](Config& c, const fs::path& p) {
                  test::write_file(p / "empty.jsonl", "");
                  c.training.dataset_path = {(p / "empty.jsonl").string()};
                },
                "empty"},
        Mistake{"LessThanARow", [](Config& c, const fs::path&) { c.training.seq_len = 4096; }, "less than one row"},
        Mistake{"IdOutsideTheVocabulary",
                [](Config& c, const fs::path& p) {
                  test::write_file(p / "bad.jsonl", "{\"ids\": [1, 2]}\n{\"ids\": [5, 131]}\n");
                  c.training.dataset_path = {(p / "bad.jsonl").string()};
                },
                "131"},
        Mistake{"CorruptLine",
                [](Config& c, const fs::path& p) {
                  test::write_file(p / "bad.jsonl", "{\"ids\": [1, 2]}\n{\"ids\": [5, }\n");
                  c.training.dataset_path = {(p / "bad.jsonl").string()};
                },
                "bad.jsonl"},
        Mistake{"TextWithoutTokenizer",
                [](Config& c, const fs::path& p) {
                  test::write_file(p / "a.txt", "some text");
                  c.training.dataset_path = {(p / "a.txt").string()};
                },
                "tokenizer"},
        Mistake{"NothingToPredict",
                [](Config& c, const fs::path& p) {
                  std::string text;
                  for (int i = 0; i < 100; ++i) {
                    text += "{\"ids\": [7]}\n";
                  }
                  test::write_file(p / "ones.jsonl", text);
                  c.training.dataset_path = {(p / "ones.jsonl").string()};
                },
                "nothing to predict"},
        Mistake{"RowsOfOneId", [](Config& c, const fs::path&) { c.training.seq_len = 1; }, "needs two ids"},
        Mistake{"SamplesWithoutTokenizer",
                [](Config& c, const fs::path&) {
                  c.sampling.freq = 2;
                  c.sampling.prompts = {"To be"};
                },
                "no tokenizer"},
        Mistake{"WidthThatHeadsDoNotDivide", [](Config& c, const fs::path&) { c.model.hidden_size = 66; },
                "no multiple of num_attention_heads"},
        Mistake{"ImpossibleHeads",
                [](Config& c, const fs::path&) {
                  c.model.num_attention_heads = 3;
                  c.model.num_key_value_heads = 2;
                },
                "num_key_value_heads"},
        Mistake{"UnevenGlobalBatch", [](Config& c, const fs::path&) { c.training.global_batch_size = 3; },
                "global_batch_size"},
        Mistake{"SequencesBeyondTheModel",
                [](Config& c, const fs::path& p) {
                  std::string ids;
                  for (int i = 0; i < 400; ++i) {
                    ids += (i == 0 ? "" : ", ") + std::to_string(i % 131);
                  }
                  test::write_file(p / "long.jsonl", "{\"ids\": [" + ids + "]}\n");
                  c.training.dataset_path = {(p / "long.jsonl").string()};
                  c.training.seq_len = 300;
                },
                "max_position_embeddings"},
        Mistake{"NothingToStartFrom",
                [](Config& c, const fs::path& p) { c.checkpoint.initial_load_path = (p / "no").string(); },
                "no: there is no such directory; name a checkpoint"},
        Mistake{"StartWithoutACheckpoint",
                [](Config& c, const fs::path& p) { c.checkpoint.initial_load_path = p.string(); },
                "holds no checkpoint; name one"},
        Mistake{"CheckpointTakenForAHuggingFaceFolder",
                [](Config& c, const fs::path& p) {
                  test::write_file(p / "manifest.json", "{}");
                  c.checkpoint.initial_load_path = p.string();
                  c.checkpoint.initial_load_in_hf = true;
                  c.model = {};
                },
                "leave out checkpoint.initial_load_in_hf"},
        Mistake{"StartFromASaveThatWasCutOff",
                [](Config& c, const fs::path& p) {
                  fs::create_directory(p / "step-3");
                  test::write_file(p / "step-3" / "manifest.json", "{}");
                  c.checkpoint.initial_load_path = (p / "step-3").string();
                },
                "step-3: has no COMPLETE"},
        Mistake{"FolderInTheWay",
                [](Config& c, const fs::path& p) {
                  test::write_file(p / "file", "");
                  c.job.dump_folder = (p / "file" / "run").string();
                },
                "file"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace caravan::train
