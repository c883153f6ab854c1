#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <span>

#include "caravan/base/error.h"
#include "caravan/model/presets.h"
#include "caravan/model_io/load.h"
#include "caravan/model_io/save.h"
#include "caravan/tensor/copy.h"
#include "tests/support/scratch.h"

namespace caravan::model_io {
namespace {

using checkpoint::SafetensorsSet;
using test::message_of;
using test::read_file;
using test::ScratchDirectory;

ops::Context reference() {
  return ops::make_context({.backend = ops::Backend::kRef, .dry_run = false, .threads = 1});
}

HfConfig tiny(bool biased = true, bool tied = false) {
  HfConfig config;
  config.model = model::preset("tiny");
  config.model.attention_bias = biased;
  config.model.mlp_bias = biased;
  config.model.tie_word_embeddings = tied;
  config.model.initializer_range = 0.2;
  config.bos_token_id = 1;
  config.eos_token_ids = {2};
  return config;
}

// A directory with a saved tiny model.
std::filesystem::path saved(const ScratchDirectory& scratch, const SaveOptions& options = {}, bool tied = false) {
  ops::Context ctx = reference();
  save_model(create_model(ctx, tiny(true, tied), DType::kF32, 5), scratch.path() / "model", options);
  return scratch.path() / "model";
}

std::map<std::string, std::string> tensors_of(const std::filesystem::path& directory) {
  const SafetensorsSet files = SafetensorsSet::open(directory);
  std::map<std::string, std::string> result;
  for (const std::string& name : files.names()) {
    const auto bytes = files.find(name)->bytes();
    result[name] = std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return result;
}

// A file again, with chosen tensors dropped, added or changed.
using Edit = std::function<void(std::vector<checkpoint::TensorPlan>&, std::map<std::string, std::string>&)>;

void rewrite(const std::filesystem::path& directory, const Edit& edit) {
  std::map<std::string, std::string> bytes = tensors_of(directory);
  std::vector<checkpoint::TensorPlan> plan;
  {
    const SafetensorsSet files = SafetensorsSet::open(directory);
    for (const std::string& name : files.names()) {
      const checkpoint::TensorEntry& entry = *files.find(name)->entry;
      plan.push_back({name, *entry.dtype, entry.shape});
    }
  }
  edit(plan, bytes);
  checkpoint::SafetensorsWriter writer(directory / "model.safetensors", plan);
  for (const checkpoint::TensorPlan& one : plan) {
    writer.append(std::as_bytes(std::span(bytes.at(one.name))));
  }
  writer.finish();
}

std::string refusal(const std::filesystem::path& directory) {
  ops::Context ctx = reference();
  return message_of<Error>([&] { load_model(ctx, directory, DType::kF32); });
}

TEST(LoadSave, ReadingThenWritingGivesEqualBytes) {
  const ScratchDirectory scratch;
  const auto first = saved(scratch);
  ops::Context ctx = reference();
  save_model(load_model(ctx, first, DType::kF32), scratch.path() / "again");
  EXPECT_EQ(read_file(first / "model.safetensors"), read_file(scratch.path() / "again" / "model.safetensors"));
  EXPECT_EQ(read_file(first / "config.json"), read_file(scratch.path() / "again" / "config.json"));
}

TEST(LoadSave, KeepsSmallFloatsThroughF32) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const ScratchDirectory scratch;
    SaveOptions options;
    options.dtype = dtype;
    const auto first = saved(scratch, options);
    ops::Context ctx = reference();
    save_model(load_model(ctx, first, DType::kF32), scratch.path() / "again", options);
    EXPECT_EQ(tensors_of(first), tensors_of(scratch.path() / "again")) << to_string(dtype);
  }
}

TEST(LoadSave, ShardsHoldTheSameTensorsAndAnIndex) {
  const ScratchDirectory scratch;
  const auto whole = saved(scratch);
  ops::Context ctx = reference();
  SaveOptions options;
  options.max_shard_bytes = 20'000;
  save_model(load_model(ctx, whole, DType::kF32), scratch.path() / "shards", options);
  EXPECT_TRUE(std::filesystem::exists(scratch.path() / "shards" / "model.safetensors.index.json"));
  EXPECT_FALSE(std::filesystem::exists(scratch.path() / "shards" / "model.safetensors"));
  EXPECT_EQ(tensors_of(whole), tensors_of(scratch.path() / "shards"));
  save_model(load_model(ctx, scratch.path() / "shards", DType::kF32), scratch.path() / "again");
  EXPECT_EQ(read_file(whole / "model.safetensors"), read_file(scratch.path() / "again" / "model.safetensors"));
}

TEST(LoadSave, ReordersRotaryRowsOnTheWayInAndOut) {
  const ScratchDirectory scratch;
  const auto whole = saved(scratch);
  ops::Context ctx = reference();
  LoadOptions options;
  options.adjust = [](model::LlamaConfig& config) { config.rope_pairing = ops::RopePairing::kInterleaved; };
  const LoadedModel interleaved = load_model(ctx, whole, DType::kF32, options);
  const LoadedModel halves = load_model(ctx, whole, DType::kF32);
  const std::string qkv = "model.layers.0.self_attn.qkv_proj.weight";
  EXPECT_NE(to_floats(interleaved.weights->at(qkv).tensor()), to_floats(halves.weights->at(qkv).tensor()));
  save_model(interleaved, scratch.path() / "again");
  EXPECT_EQ(tensors_of(whole), tensors_of(scratch.path() / "again"));
}

TEST(LoadSave, StoresATiedHeadOnce) {
  const ScratchDirectory scratch;
  const auto directory = saved(scratch, {}, /*tied=*/true);
  EXPECT_FALSE(tensors_of(directory).contains("lm_head.weight"));
  ops::Context ctx = reference();
  const LoadedModel model = load_model(ctx, directory, DType::kF32);
  EXPECT_EQ(&model.weights->at("lm_head.weight"), &model.weights->at("model.embed_tokens.weight"));
}

TEST(LoadSave, WarnsOfATiedHeadThatDiffers) {
  const ScratchDirectory scratch;
  const auto directory = saved(scratch, {}, /*tied=*/true);
  const auto add_head = [&](bool changed) {
    rewrite(directory, [&](auto& plan, auto& bytes) {
      if (!bytes.contains("lm_head.weight")) {
        plan.push_back({"lm_head.weight", DType::kF32, {131, 32}});
      }
      bytes["lm_head.weight"] = bytes["model.embed_tokens.weight"];
      bytes["lm_head.weight"][0] = static_cast<char>(bytes["lm_head.weight"][0] ^ (changed ? 1 : 0));
    });
    ops::Context ctx = reference();
    return load_model(ctx, directory, DType::kF32).warnings;
  };
  EXPECT_TRUE(add_head(false).empty());
  const auto warnings = add_head(true);
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_NE(warnings[0].find("lm_head.weight"), std::string::npos);
}

TEST(LoadSave, NamesEveryMissingExtraAndMisshapenTensor) {
  const ScratchDirectory scratch;
  const auto directory = saved(scratch);
  rewrite(directory, [](auto& plan, auto& bytes) {
    std::erase_if(plan, [](const auto& one) {
      return one.name == "model.norm.weight" || one.name == "model.layers.1.mlp.up_proj.weight";
    });
    plan.push_back({"surprise.one", DType::kF32, {1}});
    bytes["surprise.one"] = std::string(4, '\0');
    plan.push_back({"model.layers.7.self_attn.rotary_emb.inv_freq", DType::kF32, {4}});  // old files have them
    bytes["model.layers.7.self_attn.rotary_emb.inv_freq"] = std::string(16, '\0');
    for (auto& one : plan) {
      if (one.name == "model.layers.0.self_attn.k_proj.weight") {
        one.shape = {32, 16};
      }
      if (one.name == "model.layers.0.input_layernorm.weight") {
        one.dtype = DType::kI32;
      }
    }
  });
  const std::string message = refusal(directory);
  for (const char* part : {"2 tensors", "model.norm.weight", "model.layers.1.mlp.up_proj.weight", "surprise.one",
                           "model.layers.0.self_attn.k_proj.weight (expected [16, 32], found [32, 16])",
                           "model.layers.0.input_layernorm.weight (I32)"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks: " << part;
  }
  EXPECT_EQ(message.find("inv_freq"), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(LoadSave, LocatesNanAndInfinityAndGoesOn) {
  const ScratchDirectory scratch;
  const auto directory = saved(scratch);
  rewrite(directory, [](auto&, auto& bytes) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = -std::numeric_limits<float>::infinity();
    std::string& down = bytes["model.layers.1.mlp.down_proj.weight"];  // [32, 88]
    std::copy_n(reinterpret_cast<const char*>(&nan), 4, down.begin() + 4 * (88 * 3 + 5));
    std::string& norm = bytes["model.norm.weight"];
    std::copy_n(reinterpret_cast<const char*>(&inf), 4, norm.begin() + 4 * 31);
  });
  ops::Context ctx = reference();
  const std::vector<std::string> warnings = load_model(ctx, directory, DType::kF32).warnings;
  ASSERT_EQ(warnings.size(), 2U);
  EXPECT_NE(warnings[0].find("\"model.layers.1.mlp.down_proj.weight\" holds nan at [3, 5]"), std::string::npos)
      << warnings[0];
  EXPECT_NE(warnings[1].find("\"model.norm.weight\" holds -inf at [31]"), std::string::npos) << warnings[1];
}

TEST(LoadSave, RefusesToReplaceUnlessAsked) {
  const ScratchDirectory scratch;
  const auto directory = saved(scratch);
  const std::string before = read_file(directory / "model.safetensors");
  ops::Context ctx = reference();
  const LoadedModel other = create_model(ctx, tiny(), DType::kF32, 6);
  EXPECT_THROW(save_model(other, directory), FileError);
  EXPECT_EQ(read_file(directory / "model.safetensors"), before);
  SaveOptions options;
  options.replace = true;
  save_model(other, directory, options);
  EXPECT_NE(read_file(directory / "model.safetensors"), before);
  std::size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(scratch.path())) {
    ++entries;
  }
  EXPECT_EQ(entries, 1U) << "something was left beside the model";
}

TEST(LoadSave, CopiesCompanions) {
  const ScratchDirectory scratch;
  const auto directory = saved(scratch);
  test::write_file(directory / "tokenizer.json", "{\"a\": 1}");
  test::write_file(directory / "generation_config.json", "{\"temperature\": 0.5}");
  ops::Context ctx = reference();
  SaveOptions options;
  options.companions = companion_files(directory);
  save_model(load_model(ctx, directory, DType::kF32), scratch.path() / "copy", options);
  EXPECT_EQ(read_file(scratch.path() / "copy" / "tokenizer.json"), "{\"a\": 1}");
  EXPECT_EQ(read_file(scratch.path() / "copy" / "generation_config.json"), "{\"temperature\": 0.5}");
}

TEST(LoadSave, ADryRunReadsNoWeightAndReservesTheSameBytes) {
  const ScratchDirectory scratch;
  const auto directory = saved(scratch);
  ops::Context real = reference();
  ops::Context dry = ops::make_context({.backend = ops::Backend::kRef, .dry_run = true, .threads = 1});
  const LoadedModel a = load_model(real, directory, DType::kBF16);
  const LoadedModel b = load_model(dry, directory, DType::kBF16);
  EXPECT_EQ(real.allocator->use().peak_bytes, dry.allocator->use().peak_bytes);
}

}  // namespace
}  // namespace caravan::model_io
