#include "caravan/model_io/gguf_config.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/model/presets.h"
#include "caravan/model_io/compare.h"
#include "caravan/model_io/dump.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::model_io {
namespace {

using checkpoint::GgufEntry;
using checkpoint::GgufFile;
using checkpoint::GgufTensorPlan;
using quant::BlockType;
using test::message_of;
using test::ScratchDirectory;

const std::filesystem::path kGolden = test::source_folder() / "tests/golden";

// The metadata of a one-layer model, and where its tensors would be.
struct Draft {
  std::vector<GgufEntry> metadata = {{"general.architecture", std::string("llama")},
                                     {"llama.block_count", std::uint32_t{1}},
                                     {"llama.context_length", std::uint32_t{131072}},
                                     {"llama.embedding_length", std::uint32_t{256}},
                                     {"llama.feed_forward_length", std::uint32_t{64}},
                                     {"llama.attention.head_count", std::uint32_t{2}},
                                     {"llama.attention.head_count_kv", std::uint32_t{1}},
                                     {"llama.attention.layer_norm_rms_epsilon", 1e-5F},
                                     {"llama.rope.freq_base", 500000.0F}};
  std::vector<std::pair<GgufTensorPlan, std::vector<float>>> tensors = {
      {{"token_embd.weight", BlockType::kF32, {16, 256}}, {}}};

  void set(const std::string& key, const checkpoint::GgufWriteValue& value) {
    drop(key);
    metadata.push_back({key, value});
  }
  void drop(const std::string& key) {
    std::erase_if(metadata, [&](const GgufEntry& one) { return one.key == key; });
  }
  void add_vector(const std::string& name, const std::vector<float>& values) {
    tensors.push_back({{name, BlockType::kF32, {static_cast<std::int64_t>(values.size())}}, values});
  }
  GgufFile write(const std::filesystem::path& path) const {
    std::vector<GgufTensorPlan> plan;
    for (const auto& [one, values] : tensors) {
      plan.push_back(one);
    }
    checkpoint::GgufWriter writer(path, metadata, plan);
    for (const auto& [one, values] : tensors) {
      std::vector<float> all = values;
      all.resize(static_cast<std::size_t>(one.bytes()) / sizeof(float));
      writer.append(std::as_bytes(std::span(all)));
    }
    writer.finish();
    return GgufFile::open(path);
  }
};

HfConfig config_of(const Draft& draft) {
  const ScratchDirectory scratch;
  return read_gguf_config(draft.write(scratch.path() / "x.gguf"));
}

std::string refusal(const std::function<void(Draft&)>& change) {
  Draft draft;
  change(draft);
  return message_of<Error>([&] { config_of(draft); });
}

TEST(GgufConfig, ReadsTheKeysOfTheLlamaArchitecture) {
  Draft draft;
  draft.set("tokenizer.ggml.bos_token_id", std::uint32_t{1});
  draft.set("tokenizer.ggml.eos_token_id", std::uint32_t{2});
  draft.set("tokenizer.ggml.eot_token_id", std::uint32_t{9});
  const HfConfig config = config_of(draft);
  EXPECT_EQ(config.model.num_hidden_layers, 1);
  EXPECT_EQ(config.model.vocab_size, 16);
  EXPECT_EQ(config.model.head_dim, 128);
  EXPECT_EQ(config.model.num_key_value_heads, 1);
  EXPECT_EQ(config.model.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.model.rope.theta, 500000.0);
  EXPECT_EQ(config.model.rope.kind, nn::RopeKind::kDefault);
  EXPECT_TRUE(config.model.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::int64_t>{2, 9}));
  EXPECT_EQ(config.dtype, DType::kF32);
}

TEST(GgufConfig, TakesAListWhereAllLayersAreAlike) {
  Draft draft;
  draft.set("llama.feed_forward_length", std::vector<std::int32_t>{64, 64});
  EXPECT_EQ(config_of(draft).model.intermediate_size, 64);
  EXPECT_NE(refusal([](Draft& d) {
              d.set("llama.feed_forward_length", std::vector<std::int32_t>{64, 32});
            }).find("differs from layer to layer"),
            std::string::npos);
}

// Divisors as llama.cpp's converter computes them from Llama 3.1's parameters, and nothing else to go by.
TEST(GgufConfig, FindsLlama3ScalingAgainFromItsDivisors) {
  const auto cases = nlohmann::json::parse(test::read_file(kGolden / "gguf/llama3.json"));
  ASSERT_EQ(cases.size(), 4U);
  for (const auto& one : cases) {
    const auto head_dim = one.at("head_dim").get<std::int64_t>();
    Draft draft;
    draft.set("llama.attention.head_count", static_cast<std::uint32_t>(256 / head_dim));
    draft.set("llama.rope.freq_base", one.at("theta").get<float>());
    draft.add_vector("rope_freqs.weight", one.at("divisors").get<std::vector<float>>());
    const HfConfig config = config_of(draft);
    const nn::RopeConfig& rope = config.model.rope;
    EXPECT_EQ(rope.kind, nn::RopeKind::kLlama3) << one.dump();
    EXPECT_TRUE(config.warnings.empty());
    EXPECT_EQ(rope.factor, one.at("factor").get<double>());
    // Only ratios are determined: low_freq_factor is 1.
    const double low = one.at("low").get<double>();
    EXPECT_NEAR(rope.high_freq_factor, one.at("high").get<double>() / low, 1e-3) << one.dump();
    EXPECT_NEAR(static_cast<double>(*rope.original_max_position_embeddings), one.at("original").get<double>() / low,
                1.0);
  }
}

TEST(GgufConfig, KeepsDivisorsOfNoRuleAsLongropeFactorsAndSaysSo) {
  Draft draft;
  std::vector<float> divisors(64, 1.0F);
  divisors[20] = 3.0F;
  draft.add_vector("rope_freqs.weight", divisors);
  const HfConfig config = config_of(draft);
  EXPECT_EQ(config.model.rope.kind, nn::RopeKind::kLongRope);
  ASSERT_EQ(config.warnings.size(), 1U);
  nn::RopeConfig unscaled;
  unscaled.theta = 500000.0;
  const std::vector<float> plain = nn::rope_frequencies(unscaled, 128, 1);
  const std::vector<float> found = nn::rope_frequencies(config.model.rope, 128, 1);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_NEAR(found[i], plain[i] / divisors[i], 1e-6 * plain[i]) << i;
  }
  EXPECT_EQ(nn::rope_attention_scaling(config.model.rope), 1.0);
  Draft ones;
  ones.add_vector("rope_freqs.weight", std::vector<float>(64, 1.0F));
  EXPECT_EQ(config_of(ones).model.rope.kind, nn::RopeKind::kDefault);
}

TEST(GgufConfig, RefusesInOneSentenceWhatIsNoLlamaOrLacksKeys) {
  struct Case {
    std::function<void(Draft&)> change;
    std::vector<const char*> says;
  };
  const std::vector<Case> cases = {
      {[](Draft& d) { d.drop("general.architecture"); }, {"general.architecture", "missing"}},
      {[](Draft& d) { d.set("general.architecture", std::string("gemma2")); }, {"gemma2", "not supported"}},
      {[](Draft& d) { d.set("general.architecture", std::uint32_t{3}); }, {"general.architecture", "text", "u32"}},
      {[](Draft& d) {
         d.drop("llama.block_count");
         d.drop("llama.attention.layer_norm_rms_epsilon");
       },
       {"llama.block_count", "layer_norm_rms_epsilon", "missing"}},
      {[](Draft& d) { d.set("llama.block_count", std::string("1")); }, {"llama.block_count", "text"}},
      {[](Draft& d) { d.set("llama.block_count", std::uint32_t{0}); }, {"num_hidden_layers", "0"}},
      {[](Draft& d) { d.set("llama.block_count", std::uint32_t{4000000000}); }, {"num_hidden_layers"}},
      {[](Draft& d) { d.set("llama.attention.head_count", std::uint32_t{0}); }, {"head_count", "0"}},
      {[](Draft& d) { d.set("llama.attention.head_count", std::uint32_t{3}); }, {"256", "3"}},
      {[](Draft& d) { d.set("llama.attention.head_count_kv", std::uint32_t{0}); }, {"num_key_value_heads", "0"}},
      {[](Draft& d) { d.set("llama.rope.dimension_count", std::uint32_t{64}); }, {"64", "rotated"}},
      {[](Draft& d) { d.set("llama.attention.value_length", std::uint32_t{64}); }, {"64", "value"}},
      {[](Draft& d) { d.set("llama.expert_count", std::uint32_t{8}); }, {"experts"}},
      {[](Draft& d) { d.set("split.count", std::uint32_t{3}); }, {"3 pieces"}},
      {[](Draft& d) { d.set("llama.logit_scale", 0.5F); }, {"logit_scale"}},
      {[](Draft& d) { d.set("llama.rope.scaling.type", std::string("odd")); }, {"\"odd\""}},
      {[](Draft& d) { d.set("llama.rope.scaling.type", std::string("longrope")); }, {"rope_factors_short"}},
      {[](Draft& d) { d.set("llama.rope.freq_base", -1.0F); }, {"theta"}},
      {[](Draft& d) { d.add_vector("rope_freqs.weight", std::vector<float>(63, 1.0F)); }, {"rope_freqs", "63", "64"}},
      {[](Draft& d) { d.add_vector("rope_freqs.weight", std::vector<float>(64, 0.0F)); }, {"rope_freqs", "above 0"}},
      {[](Draft& d) { d.tensors.clear(); }, {"token_embd.weight", "missing"}},
      {[](Draft& d) { d.set("caravan.config", std::string("{")); }, {"caravan.config"}},
  };
  for (const Case& one : cases) {
    const std::string message = refusal(one.change);
    for (const char* word : one.says) {
      EXPECT_NE(message.find(word), std::string::npos) << "lacks \"" << word << "\": " << message;
    }
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_NE(message.find("x.gguf"), std::string::npos) << message;
  }
}

// Every kind of scaling, and what the keys have no word for.
TEST(GgufConfig, GivesBackEveryGoldenConfigWithAndWithoutItsOwnKey) {
  for (const auto& entry : std::filesystem::directory_iterator(kGolden / "models")) {
    SCOPED_TRACE(entry.path().filename().string());
    const HfConfig config = read_hf_config(entry.path());
    for (const bool own : {true, false}) {
      Draft draft;
      const GgufConfig written = format_gguf_config(config, DType::kF32, 0, "name");
      draft.metadata = written.metadata;
      if (!own) {
        draft.drop("caravan.config");
      }
      draft.tensors = {
          {{"token_embd.weight", BlockType::kF32, {config.model.vocab_size, config.model.hidden_size}}, {}}};
      if (!config.model.tie_word_embeddings) {
        draft.tensors.push_back({{"output.weight", BlockType::kF32, {1}}, {}});
      }
      if (config.model.attention_bias) {
        draft.tensors.push_back({{"blk.0.attn_q.bias", BlockType::kF32, {1}}, {}});
        draft.tensors.push_back({{"blk.0.ffn_down.bias", BlockType::kF32, {1}}, {}});
      }
      for (const GgufExtraTensor& one : written.tensors) {
        draft.add_vector(one.name, one.values);
      }
      const HfConfig back = config_of(draft);
      if (own) {
        EXPECT_EQ(format_hf_config(back, DType::kF32), format_hf_config(config, DType::kF32));
        EXPECT_TRUE(back.warnings.empty()) << back.warnings.front();
        continue;
      }
      // Without it: the function, as far as llama.cpp's keys can say it.
      const nn::RopeConfig& rope = config.model.rope;
      if (rope.kind == nn::RopeKind::kDynamic || !rope.truncate) {
        EXPECT_FALSE(written.notes.empty());
        continue;
      }
      for (const std::int64_t length : {std::int64_t{1}, rope.max_position_embeddings}) {
        const auto a = nn::rope_frequencies(rope, config.model.head_dim, length);
        const auto b = nn::rope_frequencies(back.model.rope, config.model.head_dim, length);
        for (std::size_t i = 0; i < a.size(); ++i) {
          EXPECT_NEAR(b[i], a[i], 2e-6 * a[i]) << i << " at length " << length;
        }
      }
      EXPECT_NEAR(nn::rope_attention_scaling(back.model.rope), nn::rope_attention_scaling(rope), 1e-6);
    }
  }
}

TEST(GgufConfig, TheKeysCountWhereTheOwnConfigContradictsThem) {
  const HfConfig config = read_hf_config(kGolden / "models/tied");
  Draft draft;
  draft.metadata = format_gguf_config(config, DType::kF32, 0, "name").metadata;
  draft.set("llama.rope.freq_base", 12345.0F);
  draft.tensors = {{{"token_embd.weight", BlockType::kF32, {config.model.vocab_size, config.model.hidden_size}}, {}}};
  const HfConfig back = config_of(draft);
  EXPECT_EQ(back.model.rope.theta, 12345.0);
  ASSERT_EQ(back.warnings.size(), 1U);
  EXPECT_NE(back.warnings[0].find("caravan.config"), std::string::npos);
}

// Files of the gguf package, written with the permutation of llama.cpp's converter: the numbers are transformers'.
TEST(GgufModel, ComputesWhatTransformersDoesFromAFileOfAnotherProgram) {
  for (const char* name : {"biases", "wide_head_dim"}) {
    const ScratchDirectory scratch;
    ops::Context ctx = ops::make_context({.backend = ops::Backend::kCpu, .dry_run = false, .threads = 1});
    const LoadedModel model = load_model(ctx, kGolden / "gguf" / (std::string(name) + ".gguf"), DType::kF32);
    const std::filesystem::path golden = kGolden / "models" / name;
    dump(ctx, model, read_id_lists(golden / "ids.json"), {.logits = true, .hidden = true}, scratch.path() / "out");
    const Comparison result = compare(scratch.path() / "out", golden / "expected.safetensors", 1e-4);
    EXPECT_EQ(result.first_difference, -1) << name;
    EXPECT_GT(result.tensors.size(), 6U);
  }
}

TEST(GgufModel, NamesEveryMissingExtraAndMisshapenTensor) {
  const ScratchDirectory scratch;
  Draft draft;
  draft.add_vector("surprise", {1.0F});
  draft.add_vector("output_norm.weight", std::vector<float>(255, 1.0F));
  draft.write(scratch.path() / "x.gguf");
  const std::string message = message_of<FormatError>([&] { open_model(scratch.path() / "x.gguf"); });
  for (const char* word : {"blk.0.attn_q.weight", "blk.0.ffn_down.weight", "surprise",
                           "output_norm.weight (expected [256], found [255])"}) {
    EXPECT_NE(message.find(word), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace caravan::model_io
