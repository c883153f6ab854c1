#include "caravan/train/config_keys.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <set>

#include "caravan/base/error.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::train {
namespace {

using test::message_of;

Config read(const std::string& text) {
  Config config;
  read_toml(config, text, "run.toml");
  return config;
}

std::string toml_error(const std::string& text) {
  return message_of<ConfigError>([&] { read(text); });
}

std::string key_error(const std::string& name, const std::string& value) {
  Config config;
  return message_of<ConfigError>([&] { set_key(config, name, value); });
}

// What validate() says to a config with these keys.
std::string contradiction(const std::vector<std::pair<std::string, std::string>>& keys) {
  Config config;
  for (const auto& [name, value] : keys) {
    set_key(config, name, value);
  }
  return message_of<Error>([&] { validate(config); });
}

TEST(ConfigKeys, HoldEveryKeyOnceWithTheDefaultOfTheStruct) {
  std::set<std::string> names;
  for (const ConfigKey& key : config_keys()) {
    EXPECT_TRUE(names.insert(key.name).second) << key.name;
    EXPECT_EQ(std::count(key.name.begin(), key.name.end(), '.'), 1) << key.name;
    EXPECT_FALSE(key.help.empty()) << key.name;
    EXPECT_FALSE(key.help.ends_with('.')) << key.name;
    if (!key.plain_name.empty()) {
      EXPECT_TRUE(names.insert(key.plain_name).second) << key.plain_name;
    }
    if (key.kind == KeyKind::kChoice) {
      EXPECT_NE(std::find_if(key.choices.begin(), key.choices.end(),
                             [&](const std::string& one) { return key.default_text == "\"" + one + "\""; }),
                key.choices.end())
          << key.name;
    }
  }
  const auto default_of = [](const std::string& name) {
    return std::ranges::find(config_keys(), name, &ConfigKey::name)->default_text;
  };
  EXPECT_EQ(default_of("training.seq_len"), "2048");
  EXPECT_EQ(default_of("training.steps"), "unset");
  EXPECT_EQ(default_of("optimizer.lr"), "0.0008");
  EXPECT_EQ(default_of("optimizer.eps"), "1e-08");
  EXPECT_EQ(default_of("training.max_norm"), "1.0");
  EXPECT_EQ(default_of("training.dataset_path"), "[]");
  EXPECT_EQ(default_of("checkpoint.enable"), "true");
  EXPECT_EQ(default_of("job.dump_folder"), "\"./outputs\"");
}

TEST(ConfigKeys, HaveAPlainNameForWhatAPlainTrainerTakes) {
  const std::vector<std::pair<std::string, std::string>> expected = {{"vocab_size", "model.vocab_size"},
                                                                     {"hidden_size", "model.hidden_size"},
                                                                     {"num_layers", "model.num_hidden_layers"},
                                                                     {"num_heads", "model.num_attention_heads"},
                                                                     {"num_kv_heads", "model.num_key_value_heads"},
                                                                     {"intermediate_size", "model.intermediate_size"},
                                                                     {"max_seq_len", "training.seq_len"},
                                                                     {"batch_size", "training.local_batch_size"},
                                                                     {"epochs", "training.epochs"},
                                                                     {"output_dir", "job.dump_folder"},
                                                                     {"steps", "training.steps"},
                                                                     {"lr", "optimizer.lr"},
                                                                     {"seed", "debug.seed"},
                                                                     {"data", "training.dataset_path"}};
  for (const auto& [plain, full] : expected) {
    const auto key = std::ranges::find(config_keys(), plain, &ConfigKey::plain_name);
    ASSERT_NE(key, config_keys().end()) << plain;
    EXPECT_EQ(key->name, full);
    Config by_plain, by_full;
    set_key(by_plain, plain, "3");
    set_key(by_full, full, "3");
    EXPECT_EQ(by_plain, by_full) << plain;
    EXPECT_NE(by_plain, Config{}) << plain;
  }
}

// A value of each key that is neither its default nor easy to print.
std::string unusual_value(const ConfigKey& key) {
  switch (key.kind) {
    case KeyKind::kText:
      return "a \"quoted\" \\ line\nand\t\x01 Zürich # no comment";
    case KeyKind::kTextList:
      return key.choices.empty() ? R"(["with, comma", "", 'C:\x', "ü"])" : key.choices.back() + "," + key.choices[0];
    case KeyKind::kInteger:
      return "7";
    case KeyKind::kNumber:
      return "0.12345678901234567";
    case KeyKind::kNumberList:
      return "3,0.1,1e-300";
    case KeyKind::kBool:
      return key.default_text == "true" ? "false" : "true";
    case KeyKind::kChoice:
      return key.default_text == "\"" + key.choices.back() + "\"" ? key.choices.front() : key.choices.back();
  }
  return "";
}

TEST(ConfigToml, PrintedAndReadAgainEveryKeyIsTheSame) {
  Config all;
  for (const ConfigKey& key : config_keys()) {
    Config one;
    set_key(one, key.name, unusual_value(key));
    set_key(all, key.name, unusual_value(key));
    EXPECT_EQ(read(print_toml(one)), one) << key.name;
    const bool only_choice = key.choices.size() == 1;
    EXPECT_EQ(one == Config{}, only_choice) << key.name;
  }
  EXPECT_EQ(read(print_toml(all)), all) << print_toml(all);
  EXPECT_EQ(read(print_toml(Config{})), Config{});
}

TEST(ConfigToml, LeavesOutWhatIsUnset) {
  const std::string text = print_toml(Config{});
  EXPECT_EQ(text.find("vocab_size"), std::string::npos);
  EXPECT_NE(text.find("\n[training]\ndataset_path = []\n"), std::string::npos) << text;
}

TEST(ConfigToml, SetsWhatStandsThereAndKeepsTheRest) {
  const Config config = read(R"(
[training]
dataset_path = ["a.txt", "b.jsonl"]
dataset_weights = [1, 0.5]
steps = 1_000
[optimizer]
lr = 1  # a whole number for a decimal one
[model]
tie_word_embeddings = true
vocab_size = 512
[validation]
dataset_path = "one.txt"
)");
  Config expected;
  expected.training.dataset_path = {"a.txt", "b.jsonl"};
  expected.training.dataset_weights = {1.0, 0.5};
  expected.training.steps = 1000;
  expected.optimizer.lr = 1.0;
  expected.model.tie_word_embeddings = true;
  expected.model.vocab_size = 512;
  expected.validation.dataset_path = {"one.txt"};
  EXPECT_EQ(config, expected);
}

TEST(ConfigToml, NamesTheExpectedTypeAndThePlaceOfAWrongOne) {
  EXPECT_EQ(toml_error("[training]\n\nsteps = \"ten\"\n"),
            "run.toml: training.steps: expected a whole number, at least 1 and at most 1000000000000, found the text "
            "\"ten\"; line 3, column 9");
  EXPECT_EQ(toml_error("[training]\nseq_len = 2.5\n"),
            "run.toml: training.seq_len: expected a whole number, at least 1 and at most 16777216, found 2.5; line 2, "
            "column 11");
  EXPECT_EQ(toml_error("[optimizer]\nlr = true\n"),
            "run.toml: optimizer.lr: expected a number, at least 0, found true; line 2, column 6");
  EXPECT_EQ(toml_error("[checkpoint]\nenable = 1\n"),
            "run.toml: checkpoint.enable: expected true or false, found 1; line 2, column 10");
  EXPECT_EQ(toml_error("[job]\ndump_folder = [\"a\"]\n"),
            "run.toml: job.dump_folder: expected a text, found a list; line 2, column 15");
  EXPECT_EQ(toml_error("[training]\ndataset_path = [\"a\", 3]\n"),
            "run.toml: training.dataset_path: expected a list of texts, found 3; line 2, column 16");
  EXPECT_EQ(toml_error("[training.steps]\na = 1\n"),
            "run.toml: training.steps: expected a whole number, at least 1 and at most 1000000000000, found a section; "
            "line 1, column 1");
  EXPECT_EQ(toml_error("[lr_scheduler]\ndecay_type = \"exp\"\n"),
            "run.toml: lr_scheduler.decay_type: expected one of linear, sqrt, cosine, found the text \"exp\"; line 2, "
            "column 14");
  EXPECT_EQ(toml_error("training = 3\n"),
            "run.toml: training: expected a section, [training], found 3; line 1, column 1");
}

TEST(ConfigToml, RefusesNumbersOutsideTheirLimits) {
  for (const char* text : {"[training]\nsteps = 0",
                           "[training]\nseq_len = 0",
                           "[training]\nseq_len = 99999999999",
                           "[training]\nlocal_batch_size = -1",
                           "[training]\nglobal_batch_size = 0",
                           "[training]\nglobal_batch_size = -2",
                           "[training]\nmax_norm = -0.1",
                           "[optimizer]\nlr = -1e-9",
                           "[optimizer]\nlr = nan",
                           "[optimizer]\nlr = inf",
                           "[optimizer]\nbeta1 = 1.0",
                           "[optimizer]\nbeta2 = -0.1",
                           "[optimizer]\neps = 0",
                           "[sampling]\ntop_p = 0.0",
                           "[sampling]\ntop_p = 1.1",
                           "[validation]\nfraction = 1",
                           "[validation]\nsteps = 0",
                           "[training]\ndataset_weights = [1, 0]",
                           "[model]\nhidden_size = 0",
                           "[checkpoint]\nload_step = -2",
                           "[debug]\nseed = -1",
                           "[training]\nthreads = 2000"}) {
    EXPECT_NE(toml_error(text).find(": expected a "), std::string::npos) << text << ": " << toml_error(text);
  }
  EXPECT_NE(toml_error("[training]\nglobal_batch_size = 0").find("a whole number, -1 or at least 1 and"),
            std::string::npos);
  EXPECT_NE(toml_error("[optimizer]\nbeta1 = 1.0").find("a number, at least 0 and below 1, found 1"),
            std::string::npos);
  EXPECT_EQ(toml_error("[training]\nglobal_batch_size = -1\nmax_norm = 0\n[optimizer]\nbeta1 = 0\nlr = 0"), "");
  EXPECT_EQ(toml_error("[debug]\nseed = 9223372036854775807"), "");
}

TEST(ConfigToml, NamesTheNearestOfAnUnknownKey) {
  EXPECT_EQ(toml_error("[training]\nsteps = 3\nseqlen = 5\n"),
            "run.toml: unknown key training.seqlen; did you mean training.seq_len?; line 3, column 1");
  EXPECT_EQ(toml_error("[optimiser]\nlr = 5\n"),
            "run.toml: unknown section [optimiser]; did you mean [optimizer]?; line 1, column 2");
  EXPECT_EQ(toml_error("[optimizer]\nseq_len = 5\n"),
            "run.toml: unknown key optimizer.seq_len; did you mean training.seq_len?; line 2, column 1");
  EXPECT_EQ(toml_error("[model]\nmax_seq_len = 5\n"),
            "run.toml: unknown key model.max_seq_len; did you mean training.seq_len?; line 2, column 1");
  EXPECT_EQ(toml_error("batch_size = 5\n"),
            "run.toml: unknown key batch_size; did you mean training.local_batch_size?; line 1, column 1");
  EXPECT_EQ(toml_error("steps = 5\n"), "run.toml: unknown key steps; did you mean training.steps?; line 1, column 1");
  EXPECT_EQ(toml_error("[training]\nzzzzzzzzzz = 5\n"),
            "run.toml: unknown key training.zzzzzzzzzz; caravan train --help lists the keys; line 2, column 1");
}

TEST(ConfigToml, SaysWhatIsTorchtitansAndHasNoMeaningHere) {
  EXPECT_EQ(toml_error("[compile]\nenable = true\n"),
            "run.toml: compile.enable = true is torchtitan's and has no meaning here; remove it; line 2, column 1");
  EXPECT_EQ(toml_error("[training]\ndataset = \"c4\"\n"),
            "run.toml: training.dataset is torchtitan's and has no meaning here; name your files in "
            "training.dataset_path instead; line 2, column 1");
  EXPECT_EQ(toml_error("[model]\nname = \"llama4\"\n"),
            "run.toml: model.name is torchtitan's and has no meaning here; Caravan trains Llama 1, 2 and 3.x; write "
            "\"llama3\" or remove it; line 2, column 1");
  EXPECT_EQ(toml_error("[model]\nconverters = [\"float8\"]\n"),
            "run.toml: model.converters = a list is torchtitan's and has no meaning here; remove it; line 2, column 1");
  EXPECT_EQ(toml_error("[metrics]\nenable_wandb = true\n"),
            "run.toml: metrics.enable_wandb is torchtitan's and has no meaning here; metrics.jsonl and TensorBoard "
            "events are written; remove it; line 2, column 1");
  EXPECT_EQ(toml_error("[training.dataloader]\nnum_workers = 2\n"),
            "run.toml: training.dataloader.num_workers is torchtitan's and has no meaning here; see "
            "training.prefetch_steps; remove it; line 2, column 1");
}

// The sections and keys of torchtitan 0.2's llama3 debug_model.toml, without what names its own data and flavor.
constexpr const char* kDebugModel = R"(
[job]
dump_folder = "./outputs"
description = "Llama 3 debug training"
print_config = false
[profiling]
enable_profiling = false
save_traces_folder = "profile_trace"
profile_freq = 10
enable_memory_snapshot = false
save_memory_snapshot_folder = "memory_snapshot"
[metrics]
log_freq = 1
disable_color_printing = false
enable_tensorboard = false
save_tb_folder = "tb"
enable_wandb = false
[model]
name = "llama3"
flavor = "torchtitan-debug"
hf_assets_path = "./tests/assets/tokenizer"
converters = []
[optimizer]
name = "AdamW"
lr = 8e-4
eps = 1e-8
[lr_scheduler]
warmup_steps = 2
decay_ratio = 0.8
decay_type = "linear"
min_lr_factor = 0.0
[training]
local_batch_size = 8
seq_len = 2048
max_norm = 1.0
steps = 10
[parallelism]
data_parallel_replicate_degree = 1
data_parallel_shard_degree = -1
fsdp_reshard_after_forward = "default"
tensor_parallel_degree = 1
enable_async_tensor_parallel = false
pipeline_parallel_degree = 1
pipeline_parallel_schedule = "1F1B"
context_parallel_degree = 1
context_parallel_rotate_method = "allgather"
[checkpoint]
enable = false
folder = "checkpoint"
interval = 10
last_save_model_only = false
export_dtype = "float32"
async_mode = "disabled"
[activation_checkpoint]
mode = "selective"
selective_ac_option = '2'
[compile]
enable = false
components = ["model", "loss"]
[quantize.linear.float8]
enable_fsdp_float8_all_gather = false
filter_fqns = ["output"]
[validation]
enable = false
freq = 5
steps = 10
)";

TEST(ConfigToml, ReadsTorchtitansDebugModel) {
  const Config config = read(kDebugModel);
  validate(config);
  EXPECT_EQ(config.training.steps, 10);
  EXPECT_EQ(config.lr_scheduler.decay_ratio, 0.8);
  EXPECT_EQ(config.activation_checkpoint.selective_ac_option, "2");
  EXPECT_FALSE(config.checkpoint.enable);
}

TEST(ConfigToml, NamesThePlaceOfWhatIsNoToml) {
  EXPECT_EQ(toml_error("[training]\nsteps 10\n").find("run.toml: not TOML: "), 0u);
  EXPECT_NE(toml_error("[training]\nsteps 10\n").find("; line 2, column 7"), std::string::npos);
  EXPECT_EQ(toml_error("[training]\nsteps = 1\nsteps = 2\n").find("run.toml: not TOML: "), 0u);
  EXPECT_EQ(toml_error("[job]\ndescription = \"\xff\"\n").find("run.toml: not TOML: "), 0u);
  std::string deep = "x";
  for (int i = 0; i < 300'000; ++i) {
    deep += ".x";
  }
  EXPECT_EQ(toml_error("[job]\n" + deep + " = 1\n"),
            "run.toml: more than 4,096 dots outside quotes, which no configuration needs; line 2, column 8194");
  EXPECT_EQ(toml_error(std::string(2'000'000, '#')),
            "run.toml: a configuration of 2,000,000 bytes is not read; at most 1,048,576 are");
}

TEST(ConfigToml, TakesLettersOfAllScriptsInQuotesAndCommentsAlone) {
  const std::string text = R"(# größer
[job]  # été
description = "a\"ü' # no comment" # ñ
dump_folder = 'C:\'  # ü
[sampling]
prompts = ["""ü "quoted" \""" ß""", '''ß''ü''', "", '', """""ö""""", # ä
  "z"]
)";
  const Config config = read("\xef\xbb\xbf" + text);
  EXPECT_EQ(config.job.description, "a\"ü' # no comment");
  EXPECT_EQ(config.job.dump_folder, "C:\\");
  EXPECT_EQ(config.sampling.prompts,
            (std::vector<std::string>{"ü \"quoted\" \"\"\" ß", "ß''ü", "", "", "\"\"ö\"\"", "z"}));
  EXPECT_EQ(read("[job]\ndescription = \"\"\"\nü \\\n   é\\n\\u00e9\"\"\"\n").job.description, "ü é\né");
  EXPECT_EQ(read("[job]\ndescription = '''\nC:\\é \"x\"''''\n").job.description, "C:\\é \"x\"'");
  EXPECT_EQ(read("[job]\ndescription = \"\xf0\x9f\x90\xaa\"\n").job.description, "\xf0\x9f\x90\xaa");
  // A backslash before a letter is no escape, and the letter's own does not make it one.
  EXPECT_EQ(toml_error("[job]\ndescription = \"\\é\"\n").find("run.toml: not TOML: "), 0u);
  for (const char* broken : {"\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe0\x80\x80", "\x80"}) {
    EXPECT_EQ(toml_error("[job]\ndescription = \"" + std::string(broken) + "\"\n"),
              "run.toml: not TOML: the text that begins here is not UTF-8; line 2, column 15");
  }
  EXPECT_EQ(toml_error("[compile]\nenable = ð\n"),
            "run.toml: not TOML: a letter beyond ASCII outside quotes; line 2, column 10");
  EXPECT_EQ(toml_error("[job]\ndescription = \"\"\"a\nb\"\"\" é\n"),
            "run.toml: not TOML: a letter beyond ASCII outside quotes; line 3, column 6");
}

TEST(ConfigToml, ChangesNothingWhenItThrows) {
  Config config;
  EXPECT_THROW(read_toml(config, "[training]\nsteps = 3\nwrong = 1\n", "run.toml"), ConfigError);
  EXPECT_EQ(config, Config{});
}

TEST(SetKey, ReadsListsNumbersAndTextsOfACommandLine) {
  Config config;
  set_key(config, "training.dataset_path", "a.txt,b.txt");
  set_key(config, "sampling.prompts", R"(["ROMEO: ", "To be, or"])");
  set_key(config, "training.dataset_weights", "1,2.5");
  set_key(config, "optimizer.lr", "3e-4");
  set_key(config, "job.description", "unset");
  set_key(config, "checkpoint.exclude_from_loading", "optimizer");
  set_key(config, "checkpoint.load_step", "-1");
  EXPECT_EQ(config.training.dataset_path, (std::vector<std::string>{"a.txt", "b.txt"}));
  EXPECT_EQ(config.sampling.prompts, (std::vector<std::string>{"ROMEO: ", "To be, or"}));
  EXPECT_EQ(config.training.dataset_weights, (std::vector<double>{1.0, 2.5}));
  EXPECT_EQ(config.optimizer.lr, 3e-4);
  EXPECT_EQ(config.job.description, "unset");
  EXPECT_EQ(config.checkpoint.exclude_from_loading, (std::vector<std::string>{"optimizer"}));
  set_key(config, "training.dataset_path", "");
  set_key(config, "training.dataset_weights", "[]");
  EXPECT_TRUE(config.training.dataset_path.empty());
  EXPECT_TRUE(config.training.dataset_weights.empty());
}

TEST(SetKey, TakesAValueAwayWhereNothingIsTheDefault) {
  Config config;
  set_key(config, "training.steps", "5");
  EXPECT_EQ(config.training.steps, 5);
  set_key(config, "steps", "unset");
  EXPECT_EQ(config, Config{});
  EXPECT_NE(key_error("training.seq_len", "unset"), "");
}

TEST(SetKey, RefusesAsTomlDoes) {
  EXPECT_EQ(key_error("training.seq_len", "ten"),
            "training.seq_len: expected a whole number, at least 1 and at most 16777216, found the text \"ten\"");
  EXPECT_EQ(key_error("training.seq_len", "1.5"),
            "training.seq_len: expected a whole number, at least 1 and at most 16777216, found 1.5");
  EXPECT_EQ(key_error("training.seq_len", "1e3"),
            "training.seq_len: expected a whole number, at least 1 and at most 16777216, found 1000.0");
  EXPECT_EQ(key_error("training.dataset_path", "a.txt,"),
            "training.dataset_path: \"a.txt,\" has nothing on one side of a comma; an empty text is written in a TOML "
            "array, as [\"\"]");
  EXPECT_EQ(key_error("sampling.prompts", "[\"\", \"a\"]"), "");
  EXPECT_NE(key_error("training.seq_len", ""), "");
  EXPECT_NE(key_error("training.seq_len", "10 "), "");
  EXPECT_NE(key_error("debug.seed", "9223372036854775808"), "");
  EXPECT_EQ(key_error("checkpoint.enable", "yes"), "checkpoint.enable: expected true or false, found the text \"yes\"");
  EXPECT_EQ(key_error("checkpoint.exclude_from_loading", "optimiser"),
            "checkpoint.exclude_from_loading: expected a list of some of optimizer, lr_scheduler, dataloader, "
            "train_state, found the text \"optimiser\"");
  EXPECT_EQ(key_error("training.seq_length", "3"), "unknown key training.seq_length; did you mean training.seq_len?");
  EXPECT_EQ(key_error("compile.enable", "true"),
            "compile.enable = true is torchtitan's and has no meaning here; remove it");
  EXPECT_EQ(key_error("compile.enable", "false"), "");
  EXPECT_EQ(key_error("job.description", "caf\xe9"), "job.description: the text is not UTF-8: \"caf?\"");
  EXPECT_NE(key_error("sampling.prompts", "[1]\n[job]\nx=1"), "");
  EXPECT_NE(key_error("sampling.prompts", "[\"a\""), "");
}

TEST(Validate, AcceptsTheDefaults) {
  EXPECT_EQ(contradiction({}), "");
}

TEST(Validate, RefusesWhatContradictsItself) {
  EXPECT_EQ(contradiction({{"parallelism.data_parallel_replicate_degree", "2"}}),
            "parallelism.data_parallel_replicate_degree 2: several ranks come with multi-process training; use 1");
  EXPECT_EQ(contradiction({{"training.global_batch_size", "12"}}),
            "training.global_batch_size 12 is not a multiple of training.local_batch_size 8; a step is whole "
            "micro-batches");
  EXPECT_EQ(contradiction({{"training.epochs", "2"}, {"training.steps", "100"}}),
            "training.steps 100 and training.epochs 2 are both set; remove one of them (on a command line: "
            "--training.steps unset, or --training.epochs 0)");
  EXPECT_EQ(contradiction({{"model.flavor", "8B"}}),
            "model.flavor \"8B\" is torchtitan's name; here it is \"llama3-8b\"");
  EXPECT_EQ(contradiction({{"model.flavor", "llama3-8"}}),
            "model.flavor: there is no preset \"llama3-8\"; the nearest is \"llama3-8b\"");
  const std::vector<std::vector<std::pair<std::string, std::string>>> refused = {
      {{"parallelism.tensor_parallel_degree", "2"}},
      {{"parallelism.pipeline_parallel_degree", "4"}},
      {{"parallelism.context_parallel_degree", "2"}},
      {{"parallelism.data_parallel_shard_degree", "8"}},
      {{"activation_checkpoint.selective_ac_option", "0"}},
      {{"activation_checkpoint.selective_ac_option", "ops"}},
      {{"activation_checkpoint.selective_ac_option", "2x"}},
      {{"training.dtype", "float64"}},
      {{"training.dtype", "float64"}, {"training.backend", "ref"}, {"training.mixed_precision_param", "bfloat16"}},
      {{"training.loss_scale", "1000"}},
      {{"validation.enable", "true"}},
      {{"validation.dataset_path", "a"}, {"validation.fraction", "0.1"}},
      {{"checkpoint.initial_load_in_hf", "true"}},
      {{"checkpoint.initial_load_in_hf", "true"},
       {"checkpoint.initial_load_path", "m"},
       {"checkpoint.initial_load_model_only", "false"}},
      {{"training.dataset_weights", "1,2"}, {"training.dataset_path", "a"}},
      {{"training.dataset_weights", "1"}, {"training.dataset_path", "a"}, {"training.epochs", "1"}},
      {{"sampling.freq", "10"}},
      {{"job.dump_folder", ""}}};
  for (const auto& keys : refused) {
    EXPECT_NE(contradiction(keys), "") << keys.front().first;
  }
  const std::vector<std::vector<std::pair<std::string, std::string>>> accepted = {
      {{"training.global_batch_size", "24"}},
      {{"training.epochs", "2"}},
      {{"parallelism.data_parallel_shard_degree", "1"}},
      {{"activation_checkpoint.selective_ac_option", "3"}},
      {{"training.dtype", "float64"}, {"training.backend", "ref"}},
      {{"validation.enable", "true"}, {"validation.fraction", "0.1"}},
      {{"checkpoint.keep_latest_k", "1"}},
      {{"checkpoint.initial_load_in_hf", "true"}, {"checkpoint.initial_load_path", "m"}}};
  for (const auto& keys : accepted) {
    EXPECT_EQ(contradiction(keys), "") << keys.front().first;
  }
}

TEST(ConfigReference, IsThePageInDocs) {
  const std::filesystem::path page = test::source_folder() / "docs/config.md";
  if (std::getenv("CARAVAN_UPDATE_DOCS") != nullptr) {
    test::write_file(page, print_reference());
  }
  EXPECT_EQ(test::read_file(page), print_reference())
      << "docs/config.md is not what print_reference() gives; run this test with CARAVAN_UPDATE_DOCS=1";
}

TEST(ConfigReference, ListsEveryKeyAndEveryDifference) {
  const std::string page = print_reference();
  const std::size_t differences = page.find("## Where Caravan differs");
  ASSERT_NE(differences, std::string::npos);
  for (const ConfigKey& key : config_keys()) {
    const std::string word = key.name.substr(key.name.find('.') + 1);
    EXPECT_NE(page.find("| `" + word + "` | "), std::string::npos) << key.name;
    EXPECT_EQ(page.find("| `" + key.name + "` | ", differences) != std::string::npos, !key.differs.empty()) << key.name;
  }
}

}  // namespace
}  // namespace caravan::train
