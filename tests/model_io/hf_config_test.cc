#include "caravan/model_io/hf_config.h"

#include <gtest/gtest.h>

#include "caravan/base/error.h"
#include "caravan/model/presets.h"
#include "tests/support/scratch.h"

namespace caravan::model_io {
namespace {

using test::message_of;

constexpr const char* kSizes =
    R"("model_type": "llama", "vocab_size": 131, "hidden_size": 32, "intermediate_size": 88, "num_hidden_layers": 2,
       "num_attention_heads": 4)";

HfConfig parse(const std::string& more) {
  return parse_hf_config(std::string("{").append(kSizes).append(more).append("}"), "c.json");
}

TEST(HfConfig, TakesTransformersDefaultsForAbsentFields) {
  const HfConfig config = parse("");
  EXPECT_EQ(config.model.num_key_value_heads, 4);
  EXPECT_EQ(config.model.head_dim, 8);
  EXPECT_EQ(config.model.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.model.rope.theta, 10000.0);
  EXPECT_EQ(config.model.rope.kind, nn::RopeKind::kDefault);
  EXPECT_EQ(config.model.rope.max_position_embeddings, 2048);
  EXPECT_FALSE(config.model.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.eos_token_ids, std::vector<std::int64_t>{2});
  EXPECT_FALSE(config.dtype.has_value());
}

TEST(HfConfig, ReadsBothDialectsAlike) {
  const HfConfig old_dialect = parse(
      R"(, "rope_theta": 500000.0, "max_position_embeddings": 512, "torch_dtype": "bfloat16", "rope_scaling": {"type":
         "llama3", "factor": 8, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64})");
  const HfConfig new_dialect = parse(
      R"(, "max_position_embeddings": 512, "dtype": "bfloat16", "rope_parameters": {"rope_type": "llama3", "rope_theta":
         500000.0, "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4,
         "original_max_position_embeddings": 64})");
  EXPECT_EQ(old_dialect, new_dialect);
  EXPECT_EQ(old_dialect.model.rope.theta, 500000.0);
  EXPECT_EQ(old_dialect.model.rope.original_max_position_embeddings, 64);
  EXPECT_EQ(old_dialect.dtype, DType::kBF16);
}

TEST(HfConfig, ReadsOneOrSeveralEndIds) {
  EXPECT_EQ(parse(R"(, "eos_token_id": 7)").eos_token_ids, std::vector<std::int64_t>{7});
  EXPECT_EQ(parse(R"(, "eos_token_id": [7, 8])").eos_token_ids, (std::vector<std::int64_t>{7, 8}));
  EXPECT_TRUE(parse(R"(, "eos_token_id": null)").eos_token_ids.empty());
  EXPECT_FALSE(parse(R"(, "bos_token_id": null)").bos_token_id.has_value());
}

TEST(HfConfig, ComesBackFromWhatItWrites) {
  for (const RopeDialect dialect : {RopeDialect::kRopeScaling, RopeDialect::kRopeParameters}) {
    for (const model::Preset& preset : model::presets()) {
      HfConfig config;
      config.model = preset.config;
      config.bos_token_id = 1;
      config.eos_token_ids = {2, 3};
      config.dtype = DType::kF32;
      EXPECT_EQ(parse_hf_config(format_hf_config(config, DType::kF32, dialect), "back"), config) << preset.name;
    }
    HfConfig yarn = parse(
        R"(, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 0.7,
           "mscale_all_dim": 0.9, "beta_fast": 16, "beta_slow": 2, "truncate": false, "attention_factor": 1.25})");
    yarn.dtype = DType::kF16;
    EXPECT_EQ(parse_hf_config(format_hf_config(yarn, DType::kF16, dialect), "back"), yarn);
    HfConfig longrope = parse(
        R"(, "rope_scaling": {"rope_type": "longrope", "short_factor": [1, 1.5, 2, 3], "long_factor": [4, 5, 6, 7.5],
           "original_max_position_embeddings": 64})");
    longrope.dtype = DType::kBF16;
    EXPECT_EQ(parse_hf_config(format_hf_config(longrope, DType::kBF16, dialect), "back"), longrope);
  }
}

struct BadConfig {
  const char* name;
  const char* text;           // the whole file
  const char* in_message[3];  // what the sentence must say
};

class BadConfigs : public testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigs, AreRefusedInOneSentence) {
  const std::string message = message_of<Error>([&] { parse_hf_config(GetParam().text, "dir/config.json"); });
  EXPECT_EQ(message.find("dir/config.json"), 0U) << message;
  for (const char* part : GetParam().in_message) {
    if (part != nullptr) {
      EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks: " << part;
    }
  }
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

#define SIZES                                                                                                          \
  R"({"model_type": "llama", "vocab_size": 131, "hidden_size": 32, "intermediate_size": 88, "num_hidden_layers": 2, )" \
  R"("num_attention_heads": 4)"

INSTANTIATE_TEST_SUITE_P(
    All, BadConfigs,
    testing::Values(
        BadConfig{"empty", "", {"JSON"}}, BadConfig{"not_an_object", "[1]", {"object", "array"}},
        BadConfig{"nameless", R"({"vocab_size": 3})", {"model_type", "architectures"}},
        BadConfig{"other_architecture",
                  R"({"model_type": "mistral", "architectures": ["MistralForCausalLM"]})",
                  {"\"MistralForCausalLM\"", "LlamaForCausalLM"}},
        BadConfig{"other_type", R"({"model_type": "gpt2"})", {"\"gpt2\""}},
        BadConfig{"missing_sizes",
                  R"({"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2})",
                  {"vocab_size", "intermediate_size", "num_attention_heads"}},
        BadConfig{"wrong_type", SIZES R"(, "rms_norm_eps": "small"})", {"rms_norm_eps", "a number", "small"}},
        BadConfig{"fractional_size", SIZES R"(, "num_key_value_heads": 2.5})", {"num_key_value_heads", "integer"}},
        BadConfig{"huge_number", SIZES R"(, "head_dim": 18446744073709551615})", {"head_dim", "integer"}},
        BadConfig{"huge_head_dim", SIZES R"(, "head_dim": 4611686018427387904})", {"head_dim"}},
        BadConfig{"contradicting_heads", SIZES R"(, "num_key_value_heads": 3})", {"num_key_value_heads (3)"}},
        BadConfig{"uneven_heads",
                  R"({"model_type": "llama", "vocab_size": 131, "hidden_size": 33, "intermediate_size": 88,
                      "num_hidden_layers": 2, "num_attention_heads": 4})",
                  {"hidden_size (33)", "num_attention_heads (4)"}},
        BadConfig{"quantised", SIZES R"(, "quantization_config": {"bits": 4}})", {"quantization_config"}},
        BadConfig{"other_activation", SIZES R"(, "hidden_act": "gelu"})", {"\"gelu\"", "silu"}},
        BadConfig{"unknown_rope", SIZES R"(, "rope_scaling": {"type": "mrope"}})", {"\"mrope\"", "yarn"}},
        BadConfig{"rope_without_factor", SIZES R"(, "rope_scaling": {"type": "linear"}})", {"linear", "factor"}},
        BadConfig{"llama3_without_bands",
                  SIZES R"(, "rope_scaling": {"rope_type": "llama3", "factor": 8}})",
                  {"low_freq_factor", "high_freq_factor"}},
        BadConfig{"short_longrope",
                  SIZES R"(, "rope_scaling": {"rope_type": "longrope", "short_factor": [1], "long_factor": [1]}})",
                  {"short_factor", "4"}},
        BadConfig{"partial_rotation", SIZES R"(, "partial_rotary_factor": 0.5})", {"partial_rotary_factor"}},
        BadConfig{"twice", SIZES R"(, "head_dim": 8, "head_dim": 16})", {"head_dim"}},
        BadConfig{"zero_layers",
                  R"({"model_type": "llama", "vocab_size": 131, "hidden_size": 32, "intermediate_size": 88,
                      "num_hidden_layers": 0, "num_attention_heads": 4})",
                  {"num_hidden_layers"}}),
    [](const testing::TestParamInfo<BadConfig>& info) { return std::string(info.param.name); });

TEST(HfConfig, NotesFieldsThatItIgnores) {
  EXPECT_EQ(parse(R"(, "pretraining_tp": 2)").warnings.size(), 1U);
  EXPECT_EQ(parse(R"(, "attention_dropout": 0.1)").warnings.size(), 1U);
  EXPECT_TRUE(parse(R"(, "pretraining_tp": 1, "attention_dropout": 0.0)").warnings.empty());
}

TEST(HfConfig, SaysWhatIsMissingFromADirectory) {
  const test::ScratchDirectory scratch;
  EXPECT_EQ(message_of<FileError>([&] { read_hf_config(scratch.path()); }),
            scratch.path().string() + ": there is no config.json; a Hugging Face model directory has one");
  EXPECT_NE(
      message_of<FileError>([&] { read_hf_config(scratch.path() / "nowhere"); }).find("no such file or directory"),
      std::string::npos);
  std::filesystem::create_directory(scratch.path() / "config.json");
  EXPECT_NE(message_of<FileError>([&] { read_hf_config(scratch.path()); }).find("config.json is no plain file"),
            std::string::npos);
}

// The places beside a model that people name instead of it.
TEST(HfConfig, TellsWhereTheModelIsOrHowOneIsMade) {
  const test::ScratchDirectory scratch;
  const auto message = [&](const std::filesystem::path& name) {
    return message_of<FileError>([&] { read_hf_config(scratch.path() / name); });
  };
  const auto file = [&](const std::filesystem::path& name) {
    std::filesystem::create_directories((scratch.path() / name).parent_path());
    test::write_file(scratch.path() / name, "");
  };
  const std::string step = (scratch.path() / "run/checkpoint/step-3").string();
  file("run/checkpoint/step-3/manifest.json");
  file("run/checkpoint/step-3/COMPLETE");
  EXPECT_EQ(message("run/checkpoint/step-3"), step +
                                                  ": there is no config.json; it is a checkpoint of a training; make a "
                                                  "model of it with: caravan convert " +
                                                  step + " DIR");
  for (const char* name : {"run", "run/checkpoint"}) {
    EXPECT_NE(message(name).find("as " + step + "; make a model of it with: caravan convert " + step + " DIR"),
              std::string::npos)
        << message(name);
  }
  file("run/model/config.json");
  file("run/model/model.safetensors");
  const std::string model = (scratch.path() / "run/model").string();
  EXPECT_TRUE(message("run").ends_with("; the model is in " + model)) << message("run");
  EXPECT_TRUE(message("run/model/model.safetensors").ends_with("safetensors files: name " + model));
}

}  // namespace
}  // namespace caravan::model_io
