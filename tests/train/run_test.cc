// Whole runs: torch's losses out of a Hugging Face directory, resuming, exports.
#include "caravan/train/run.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <sstream>

#include "caravan/base/error.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "caravan/model_io/compare.h"
#include "caravan/tokenizer/bpe_trainer.h"
#include "caravan/train/config_keys.h"
#include "caravan/train/resume.h"
#include "tests/support/source_folder.h"
#include "tests/train/train_run.h"

namespace caravan::train {
namespace {

fs::path golden(const std::string& name) {
  return test::source_folder() / "tests" / "golden" / "models" / name;
}

double difference(const fs::path& a, const fs::path& b) {
  double worst = 0.0;
  for (const model_io::TensorDifference& one :
       model_io::compare(a / "model.safetensors", b / "model.safetensors", 1.0).tensors) {
    EXPECT_EQ(one.problem, "") << one.name;
    worst = std::max(worst, one.max_error);
  }
  return worst;
}

TEST_F(TrainRun, Float16KeepsItsLossScaleOverAStop) {
  config_.training.mixed_precision_param = "float16";
  config_.training.loss_scale = 256;
  config_.training.loss_scale_interval = 2;
  run(config_);
  const fs::path whole = folder();
  config_.job.dump_folder = folder("stopped").string();
  run(config_, stop_after(3));
  run(config_);
  EXPECT_EQ(difference(whole / "model", folder() / "model"), 0.0);
  const std::vector<Json> lines = step_lines(folder());
  ASSERT_EQ(lines.size(), 6U);
  EXPECT_EQ(lines[1].at("loss_scale"), 256.0);
  EXPECT_EQ(lines[2].at("loss_scale"), 512.0);
  EXPECT_EQ(lines[5].at("loss_scale"), 1024.0);
}

TEST_F(TrainRun, WritesATraceOfTheStepsBehindTheFirst) {
  std::ostringstream out;
  RunEnvironment environment{out};
  environment.trace = scratch_.path() / "trace.json";
  environment.trace_steps = 2;
  run_training(config_, environment);
  std::map<std::string, int> seen;
  for (const Json& one : Json::parse(test::read_file(environment.trace))) {
    if (one.value("cat", "") != "gpu") {  // whose track has every range once more
      ++seen[one.at("name").get<std::string>()];
    }
  }
  EXPECT_EQ(seen["training step"], 2);
  EXPECT_EQ(seen["optimizer"], 2);
  EXPECT_EQ(seen["forward"], seen["backward"]);
  EXPECT_GT(seen["linear"], 10);
  EXPECT_NE(out.str().find("a trace of 2 steps"), std::string::npos) << out.str();
}

// Whatever comes between steps, a run that is a step ahead of its metrics takes the steps of one that is not.
TEST_F(TrainRun, WhatHappensBetweenStepsLeavesThemAsTheyAre) {
  config_.training.steps = 9;
  config_.checkpoint.enable = false;
  run(config_);
  const std::vector<Json> plain = step_lines(folder());
  config_.job.dump_folder = folder("busy").string();
  config_.checkpoint.enable = true;
  config_.checkpoint.interval = 3;
  config_.validation.enable = true;
  config_.validation.dataset_path = config_.training.dataset_path;
  config_.validation.freq = 4;
  run(config_);
  const std::vector<Json> busy = step_lines(folder());
  ASSERT_EQ(plain.size(), 9U);
  ASSERT_EQ(busy.size(), 9U);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    for (const char* key : {"step", "loss", "grad_norm", "lr", "n_tokens_seen", "epoch"}) {
      EXPECT_EQ(plain[i].at(key), busy[i].at(key)) << key << " of line " << i;
    }
  }
}

TEST_F(TrainRun, ALossThatIsNoNumberEndsTheRunAtItsStep) {
  config_.optimizer.lr = 1e30;
  config_.lr_scheduler.warmup_steps = 0;
  const std::string message = test::message_of<NonFiniteError>([&] { run(config_); });
  const std::vector<Json> lines = step_lines(folder());
  EXPECT_NE(message.find(fmt::format("step {}: ", lines.size() + 1)), std::string::npos) << message;
  EXPECT_NE(message.find("the step was not applied"), std::string::npos) << message;
  EXPECT_LT(lines.size(), 6U);
}

TEST_F(TrainRun, EndsWithAModelDirectoryAndALineForEveryStep) {
  const Ran ran = run(config_);
  EXPECT_EQ(ran.summary.step, 6);
  EXPECT_FALSE(ran.summary.stopped);
  EXPECT_TRUE(fs::exists(folder() / "model" / "config.json"));
  EXPECT_TRUE(fs::exists(folder() / "model" / "model.safetensors"));
  const std::vector<Json> lines = step_lines(folder());
  ASSERT_EQ(lines.size(), 6U);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].at("step"), i + 1);
    for (const char* key : {"loss", "grad_norm", "lr", "tokens_per_second", "mfu", "memory_gib", "n_tokens_seen"}) {
      EXPECT_TRUE(lines[i].at(key).is_number()) << key;
    }
  }
  EXPECT_LT(lines.back().at("loss").get<double>(), lines.front().at("loss").get<double>());
  EXPECT_EQ(lines.back().at("n_tokens_seen"), 6 * 2 * 32);
  EXPECT_EQ(checkpoint::complete_steps(folder() / "checkpoint"), (std::vector<std::int64_t>{2, 4, 6}));
  Config saved;
  read_toml(saved, test::read_file(folder() / "config.toml"), "config.toml");
  EXPECT_EQ(saved, config_);
}

TEST_F(TrainRun, SaysWhenTheWarmUpIsLongerThanTheRun) {
  EXPECT_EQ(run(config_).out.find("note: "), std::string::npos);
  config_.lr_scheduler.warmup_steps = 20;
  config_.training.steps = 7;
  EXPECT_NE(run(config_).out.find("note: lr_scheduler.warmup_steps 20 is more than there are steps"),
            std::string::npos);
}

TEST_F(TrainRun, StoppedAndResumedGivesTheBitsOfAnUndisturbedRun) {
  run(config_);
  Config other = config_;
  other.job.dump_folder = folder("other").string();
  const Ran first = run(other, stop_after(3));
  EXPECT_TRUE(first.summary.stopped);
  EXPECT_EQ(first.summary.step, stop_of(3));
  EXPECT_FALSE(fs::exists(folder("other") / "model"));
  EXPECT_NE(first.out.find(fmt::format("stopped at step {} of 6", stop_of(3))), std::string::npos) << first.out;
  const Ran second = run(other);
  EXPECT_NE(second.out.find(fmt::format("step-{0}: step {0}", stop_of(3))), std::string::npos) << second.out;
  EXPECT_EQ(difference(folder() / "model", folder("other") / "model"), 0.0);
  const std::vector<Json> a = step_lines(folder());
  const std::vector<Json> b = step_lines(folder("other"));
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (const char* key : {"step", "loss", "grad_norm", "lr", "n_tokens_seen", "epoch"}) {
      EXPECT_EQ(a[i].at(key), b[i].at(key)) << key << " of line " << i;
    }
  }
  // The last checkpoints agree in every tensor, moments included.
  const auto read = [](const fs::path& run_folder) {
    return checkpoint::CheckpointReader::open(checkpoint::step_directory(run_folder / "checkpoint", 6));
  };
  const checkpoint::CheckpointReader one = read(folder());
  const checkpoint::CheckpointReader two = read(folder("other"));
  for (const auto& [name, tensor] : one.manifest().tensors) {
    EXPECT_EQ(tensor.pieces.front().hash, two.manifest().tensors.at(name).pieces.front().hash) << name;
  }
}

// torchtitan's parts: the schedule has a clock of its own.
TEST_F(TrainRun, WhatIsExcludedFromLoadingBeginsAfresh) {
  config_.lr_scheduler.decay_ratio = 0.0;  // warm-up in two steps, then the whole rate
  config_.lr_scheduler.total_steps = 50;
  run(config_);
  config_.training.steps = 8;
  config_.checkpoint.exclude_from_loading = {"lr_scheduler"};
  const Ran afresh = run(config_);
  EXPECT_NE(afresh.out.find("step-6: step 6; afresh, as checkpoint.exclude_from_loading says: lr_scheduler\n"),
            std::string::npos)
      << afresh.out;
  const std::vector<Json> lines = step_lines(folder());
  ASSERT_EQ(lines.size(), 8U);
  EXPECT_EQ(lines[5].at("lr"), 1e-2);
  EXPECT_EQ(lines[6].at("lr"), 5e-3);
  EXPECT_EQ(lines[7].at("lr"), 1e-2);
  EXPECT_EQ(lines[7].at("n_tokens_seen"), 8 * 2 * 32);
  // What was begun afresh goes on where it stands.
  config_.training.steps = 9;
  config_.lr_scheduler.warmup_steps = 4;
  config_.checkpoint.exclude_from_loading.clear();
  run(config_);
  EXPECT_EQ(step_lines(folder()).back().at("lr"), 7.5e-3);

  config_.checkpoint.exclude_from_loading = {"train_state"};
  config_.training.steps = 1;
  const Ran counted_anew = run(config_);
  EXPECT_NE(counted_anew.out.find("step-9 stays, and a run without checkpoint.exclude_from_loading goes on from"),
            std::string::npos)
      << counted_anew.out;
  ASSERT_EQ(step_lines(folder()).size(), 1U);
  EXPECT_EQ(step_lines(folder()).back().at("lr"), 1e-2);
}

TEST_F(TrainRun, RunAgainAfterItFinishedChangesNothing) {
  run(config_);
  const auto written = fs::last_write_time(folder() / "model" / "model.safetensors");
  const std::string metrics = test::read_file(folder() / "metrics.jsonl");
  const Ran again = run(config_);
  EXPECT_NE(again.out.find("finished"), std::string::npos) << again.out;
  EXPECT_EQ(fs::last_write_time(folder() / "model" / "model.safetensors"), written);
  EXPECT_EQ(test::read_file(folder() / "metrics.jsonl"), metrics);
  // More steps go on from there.
  config_.training.steps = 8;
  EXPECT_EQ(run(config_).summary.step, 8);
  EXPECT_EQ(step_lines(folder()).size(), 8U);
}

TEST_F(TrainRun, TrainedAnewExportsAnew) {
  run(config_);
  const std::string former = test::read_file(folder() / "model" / "model.safetensors");
  fs::remove_all(folder() / "checkpoint");
  config_.optimizer.lr = 5e-2;
  run(config_);
  EXPECT_NE(test::read_file(folder() / "model" / "model.safetensors"), former);
}

TEST_F(TrainRun, AnotherExportTypeExportsTheFinishedRunAgain) {
  run(config_);
  const auto bytes = fs::file_size(folder() / "model" / "model.safetensors");
  config_.checkpoint.export_dtype = "bfloat16";
  run(config_);
  EXPECT_LT(fs::file_size(folder() / "model" / "model.safetensors"), bytes * 3 / 4);
}

TEST_F(TrainRun, WeightsAloneAreSavedAtTheEndAndNotWhereItWasStopped) {
  config_.checkpoint.last_save_model_only = true;
  EXPECT_TRUE(run(config_, stop_after(3)).summary.stopped);
  EXPECT_EQ(run(config_).summary.step, 6);
  const auto last = checkpoint::CheckpointReader::open(checkpoint::step_directory(folder() / "checkpoint", 6));
  EXPECT_FALSE(holds_optimizer(last));
  EXPECT_NE(run(config_).out.find("finished"), std::string::npos);
  config_.training.steps = 8;
  const std::string message = test::message_of<ConfigError>([&] { run(config_); });
  EXPECT_NE(message.find("holds the weights alone"), std::string::npos) << message;
  EXPECT_NE(message.find("checkpoint.initial_load_path"), std::string::npos) << message;
}

TEST_F(TrainRun, AStoppedRunTellsHowToGoOnAndWhenThereIsNothingToGoOnFrom) {
  EXPECT_NE(run(config_, stop_after(3)).out.find("to go on: the same command\n"), std::string::npos);
  config_.checkpoint.load_step = 2;
  const std::string next = fmt::format("{}", stop_of(3));
  EXPECT_NE(run(config_, stop_after(1)).out.find("with checkpoint.load_step " + next + " instead of 2\n"),
            std::string::npos);
  config_.checkpoint.load_step = 5;
  const std::string message = test::message_of<ConfigError>([&] { run(config_); });
  EXPECT_NE(message.find("there are 2, " + next), std::string::npos) << message;
  config_.checkpoint.load_step = -1;
  config_.checkpoint.enable = false;
  EXPECT_NE(run(config_, stop_after(1)).out.find("nothing was saved"), std::string::npos);
}

TEST_F(TrainRun, FallsBackToTheNewestWholeCheckpoint) {
  run(config_);
  const fs::path damaged = checkpoint::step_directory(folder() / "checkpoint", 6) / "rank-0.safetensors";
  std::string bytes = test::read_file(damaged);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  test::write_file(damaged, bytes);
  const Ran again = run(config_);
  EXPECT_NE(again.out.find("warning"), std::string::npos) << again.out;
  EXPECT_NE(again.out.find("going on from"), std::string::npos) << again.out;
  EXPECT_EQ(again.summary.step, 6);
}

TEST_F(TrainRun, EpochsDecideTheNumberOfSteps) {
  config_.training.steps.reset();
  config_.training.epochs = 2;
  const Ran ran = run(config_);
  std::int64_t tokens = 0;
  for (int i = 0; i < 60; ++i) {
    tokens += 9 + (i * 5) % 23;
  }
  // Every id is seen twice, whatever padding the last rows of the epochs have.
  EXPECT_EQ(step_lines(folder()).back().at("n_tokens_seen"), 2 * tokens);
  EXPECT_EQ(ran.summary.step, ran.summary.total_steps);
}

// Random weights draw ids that no text stands for.
TEST_F(TrainRun, SamplesFromAVocabularyLargerThanTheTokenizers) {
  tokenizer::TrainOptions options;
  options.vocab_size = 260;
  tokenizer::BpeTrainer trainer(options);
  trainer.add("to be or not to be");
  test::write_file(scratch_.path() / "tokenizer.json", trainer.train().tokenizer_json);
  config_.model.hf_assets_path = (scratch_.path() / "tokenizer.json").string();
  config_.model.vocab_size = 4096;
  config_.sampling.prompts = {"to"};
  config_.sampling.freq = 2;
  run(config_);
  EXPECT_NE(test::read_file(folder() / "metrics.jsonl").find("\"sample\""), std::string::npos);
}

TEST_F(TrainRun, ValidatesOnWhatItHoldsOut) {
  config_.validation.enable = true;
  config_.validation.fraction = 0.2;
  config_.validation.local_batch_size = 2;
  config_.validation.freq = 3;
  run(config_);
  std::istringstream lines(test::read_file(folder() / "metrics.jsonl"));
  std::vector<std::int64_t> steps;
  for (std::string line; std::getline(lines, line);) {
    const Json json = parse_json(line, "metrics.jsonl");
    if (json.contains("validation_loss")) {
      steps.push_back(json.at("step").get<std::int64_t>());
      EXPECT_GT(json.at("validation_loss").get<double>(), 0.0);
    }
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 3, 6}));
}

TEST_F(TrainRun, GreedySamplesMakeAGreedyGenerationConfig) {
  config_.sampling.temperature = 0.0;
  run(config_);
  EXPECT_EQ(read_json(folder() / "model" / "generation_config.json").at("do_sample"), false);
}

TEST_F(TrainRun, BeginsFromAnotherRunsCheckpoint) {
  run(config_);
  Config second = config_;
  second.job.dump_folder = folder("second").string();
  second.checkpoint.initial_load_path = checkpoint::step_directory(folder() / "checkpoint", 6).string();
  second.optimizer.lr = 0.0;
  second.optimizer.weight_decay = 0.0;
  const Ran ran = run(second);
  EXPECT_EQ(ran.summary.step, 6);
  EXPECT_EQ(difference(folder() / "model", folder("second") / "model"), 0.0);
}

class AdamWThroughTheRun : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Torch, AdamWThroughTheRun,
                         testing::Values("biases", "gqa_dynamic", "gqa_llama3", "gqa_longrope", "gqa_yarn",
                                         "llama1_style", "mha_default", "mqa_linear", "odd_widths", "tied",
                                         "wide_head_dim", "yarn_truncate"),
                         [](const auto& info) { return info.param; });

// All sequences of the golden side by side in one row: every step is the whole batch, as torch had it.
TEST_P(AdamWThroughTheRun, TenStepsFromAHuggingFaceDirectoryAreTorchs) {
  const test::ScratchDirectory scratch;
  const Json ids = read_json(golden(GetParam()) / "ids.json");
  const Json expected = read_json(golden(GetParam()) / "adamw.json");
  std::string text;
  std::int64_t tokens = 0;
  for (const Json& sequence : ids) {
    text += Json{{"ids", sequence}}.dump() + "\n";
    tokens += static_cast<std::int64_t>(sequence.size());
  }
  test::write_file(scratch.path() / "ids.jsonl", text);
  Config config;
  config.job.dump_folder = (scratch.path() / "run").string();
  config.checkpoint.initial_load_path = golden(GetParam()).string();
  config.checkpoint.initial_load_in_hf = true;
  config.training.dataset_path = {(scratch.path() / "ids.jsonl").string()};
  config.training.shuffle = false;
  config.training.seq_len = tokens;
  config.training.local_batch_size = 1;
  config.training.steps = 10;
  config.training.threads = 2;
  config.training.mixed_precision_param = "float32";
  config.training.max_norm = expected.at("max_norm").get<double>();
  const Json& settings = expected.at("adamw");
  config.optimizer.lr = settings.at("lr").get<double>();
  config.optimizer.beta1 = settings.at("betas").at(0).get<double>();
  config.optimizer.beta2 = settings.at("betas").at(1).get<double>();
  config.optimizer.eps = settings.at("eps").get<double>();
  config.optimizer.weight_decay = settings.at("weight_decay").get<double>();
  config.lr_scheduler.warmup_steps = 0;
  config.lr_scheduler.decay_ratio = 0.0;
  run(config);
  const std::vector<Json> lines = step_lines(scratch.path() / "run");
  ASSERT_EQ(lines.size(), 10U);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    for (const char* key : {"loss", "grad_norm"}) {
      const double torch = expected.at("steps").at(i).at(key).get<double>();
      // tests/golden/README.md: f32 stays within 1e-4 of the f64 curve.
      EXPECT_NEAR(lines[i].at(key).get<double>(), torch, 1e-4 * torch) << key << " of step " << i + 1;
    }
    EXPECT_EQ(lines[i].at("lr").get<double>(), config.optimizer.lr);
  }
}

}  // namespace
}  // namespace caravan::train
