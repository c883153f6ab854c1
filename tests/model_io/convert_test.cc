#include "caravan/model_io/convert.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/model/presets.h"
#include "caravan/model_io/gguf_tokenizer.h"
#include "caravan/model_io/model_tokenizer.h"
#include "caravan/quant/dequantize.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::model_io {
namespace {

using quant::BlockType;
using test::message_of;
using test::read_file;
using test::ScratchDirectory;

const std::filesystem::path kModels = test::source_folder() / "tests/golden/models";

ops::Context context() {
  return ops::make_context({.backend = ops::Backend::kCpu, .dry_run = false, .threads = 2});
}

ConvertReport convert(const std::filesystem::path& from, const std::filesystem::path& to, Dialect dialect,
                      std::optional<BlockType> type = std::nullopt) {
  ops::Context ctx = context();
  ConvertOptions options;
  options.to = dialect;
  options.type = type;
  options.companions = from;
  return convert_model(ctx, open_model(from), to, options);
}

std::map<std::string, std::string> tensors_of(const std::filesystem::path& directory) {
  const checkpoint::SafetensorsSet files = checkpoint::SafetensorsSet::open(directory);
  std::map<std::string, std::string> result;
  for (const std::string& name : files.names()) {
    if (name.ends_with("inv_freq")) {
      continue;
    }
    const auto bytes = files.find(name)->bytes();
    result[name + " " + files.find(name)->entry->dtype_name] =
        std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return result;
}

// A model whose rows are whole blocks of every type.
std::filesystem::path wide_model(const ScratchDirectory& scratch, bool tied = false) {
  HfConfig config;
  config.model = model::preset("tiny");
  config.model.vocab_size = 96;
  config.model.hidden_size = 256;
  config.model.intermediate_size = 512;
  config.model.num_attention_heads = 4;
  config.model.num_key_value_heads = 2;
  config.model.head_dim = 64;
  config.model.tie_word_embeddings = tied;
  config.model.initializer_range = 0.05;
  ops::Context ctx = context();
  save_model(create_model(ctx, config, DType::kF32, 3), scratch.path() / "wide");
  return scratch.path() / "wide";
}

TEST(Convert, ToGgufAndBackKeepsEveryByteOfEveryGoldenModel) {
  for (const auto& entry : std::filesystem::directory_iterator(kModels)) {
    SCOPED_TRACE(entry.path().filename().string());
    const ScratchDirectory scratch;
    const ConvertReport there = convert(entry.path(), scratch.path() / "x.gguf", Dialect::kGguf);
    EXPECT_TRUE(there.verification->exact);
    EXPECT_EQ(there.verification->logit_error, 0.0);
    const ConvertReport back = convert(scratch.path() / "x.gguf", scratch.path() / "back", Dialect::kHuggingFace);
    EXPECT_TRUE(back.verification->exact);
    EXPECT_EQ(tensors_of(entry.path()), tensors_of(scratch.path() / "back"));
    const HfConfig before = read_hf_config(entry.path());
    const HfConfig after = read_hf_config(scratch.path() / "back");
    EXPECT_EQ(format_hf_config(before, DType::kF32), format_hf_config(after, DType::kF32));
  }
}

TEST(Convert, ToTransformerEngineAndBackKeepsEveryByteOrSaysWhyNot) {
  int done = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kModels)) {
    SCOPED_TRACE(entry.path().filename().string());
    const ScratchDirectory scratch;
    const HfConfig config = read_hf_config(entry.path());
    if (config.model.attention_bias ||
        config.model.hidden_size != config.model.head_dim * config.model.num_attention_heads) {
      const std::string message = message_of<UnsupportedError>(
          [&] { convert(entry.path(), scratch.path() / "te", Dialect::kTransformerEngine); });
      EXPECT_NE(message.find("TransformerEngine"), std::string::npos);
      EXPECT_FALSE(std::filesystem::exists(scratch.path() / "te"));
      continue;
    }
    convert(entry.path(), scratch.path() / "te", Dialect::kTransformerEngine);
    EXPECT_EQ(open_model(scratch.path() / "te").kind, SourceKind::kTransformerEngine);
    convert(scratch.path() / "te", scratch.path() / "back", Dialect::kHuggingFace);
    EXPECT_EQ(tensors_of(entry.path()), tensors_of(scratch.path() / "back"));
    EXPECT_EQ(format_hf_config(config, DType::kF32),
              format_hf_config(read_hf_config(scratch.path() / "back"), DType::kF32));
    ++done;
  }
  EXPECT_GE(done, 8);
}

TEST(Convert, WritesTheConfigOfTransformerEnginesClass) {
  const ScratchDirectory scratch;
  convert(kModels / "tied", scratch.path() / "te", Dialect::kTransformerEngine);
  const auto json = nlohmann::json::parse(read_file(scratch.path() / "te/config.json"));
  EXPECT_EQ(json.at("architectures").at(0), "NVLlamaForCausalLM");
  EXPECT_EQ(json.at("attn_input_format"), "thd");
  EXPECT_TRUE(json.at("layer_precision").is_null());
}

// The tensors that this program writes are those that the gguf package writes, byte for byte.
TEST(Convert, WritesTheTensorsOfLlamaCppsConverter) {
  for (const char* name : {"biases", "wide_head_dim"}) {
    const ScratchDirectory scratch;
    convert(kModels / name, scratch.path() / "x.gguf", Dialect::kGguf);
    const auto ours = checkpoint::GgufFile::open(scratch.path() / "x.gguf");
    const auto theirs = checkpoint::GgufFile::open(kModels / "../gguf" / (std::string(name) + ".gguf"));
    ASSERT_EQ(ours.header().tensors.size(), theirs.header().tensors.size());
    for (const checkpoint::GgufTensor& one : theirs.header().tensors) {
      const checkpoint::GgufTensor* mine = ours.find(one.name);
      ASSERT_NE(mine, nullptr) << one.name;
      EXPECT_EQ(mine->shape, one.shape) << one.name;
      EXPECT_TRUE(std::ranges::equal(ours.blocks(*mine).bytes, theirs.blocks(one).bytes)) << one.name;
    }
    for (const std::string& key : theirs.metadata().keys()) {
      ASSERT_NE(ours.metadata().find(key), nullptr) << key;
      EXPECT_EQ(ours.metadata().find(key)->type, theirs.metadata().find(key)->type) << key;
    }
  }
}

// tokenizer.model of SentencePiece and of tiktoken, which the oldest and many gated models bring and nothing else.
TEST(Convert, ATokenizerModelBecomesTheTokenizerOfAGgufFile) {
  const ScratchDirectory scratch;
  for (const auto& [file, rows] : {std::pair("bpe.model", 640), std::pair("tiktoken.model", 1024)}) {
    const std::filesystem::path folder = scratch.path() / file;
    HfConfig config;
    config.model = model::preset("tiny");
    config.model.vocab_size = rows;
    ops::Context ctx = context();
    save_model(create_model(ctx, config, DType::kF32, 3), folder);
    std::filesystem::copy_file(kModels.parent_path() / "tokenizers" / file, folder / "tokenizer.model");
    test::write_file(folder / "tokenizer_config.json", R"({"chat_template": "{{ messages }}", "legacy": true})");

    const std::filesystem::path target = scratch.path() / (std::string(file) + ".gguf");
    const ConvertReport report = convert(folder, target, Dialect::kGguf);
    const auto kept = read_gguf_tokenizer(checkpoint::GgufFile::open(target));
    ASSERT_TRUE(kept.has_value()) << report.notes.size();
    EXPECT_EQ(kept->tokens.size(), static_cast<std::size_t>(rows));
    EXPECT_EQ(kept->chat_template, "{{ messages }}");

    const tokenizer::Tokenizer from = tokenizer::Tokenizer::load(folder);
    const tokenizer::Tokenizer to = load_tokenizer(target);
    const std::filesystem::path back = scratch.path() / (std::string(file) + ".back");
    convert(target, back, Dialect::kHuggingFace);
    const tokenizer::Tokenizer again = load_tokenizer(back);
    for (const char* text : {"Hello world", "don't 12345  \u00e9\u4e2d\n\n", ""}) {
      EXPECT_EQ(from.encode(text), to.encode(text)) << file << ": " << text;
      EXPECT_EQ(from.encode(text), again.encode(text)) << file << ": " << text;
    }
  }
}

TEST(Convert, EveryBlockTypeIsWrittenCheckedAndReadAgain) {
  const ScratchDirectory scratch;
  const auto source = wide_model(scratch);
  struct Case {
    BlockType type;
    const char* head;  // few bits leave the head at six
    double weight_error;
  };
  // Half a step of b bits over the range of normal weights, about six deviations a block: 6 / 2^b / sqrt(12), doubled
  // for what scales cost.
  for (const Case& one :
       {Case{BlockType::kQ80, "Q8_0", 0.014}, Case{BlockType::kQ6K, "Q6_K", 0.055}, Case{BlockType::kQ50, "Q6_K", 0.11},
        Case{BlockType::kQ51, "Q6_K", 0.11}, Case{BlockType::kQ4K, "Q6_K", 0.22}, Case{BlockType::kQ40, "Q6_K", 0.22},
        Case{BlockType::kQ41, "Q6_K", 0.22}, Case{BlockType::kF16, "F16", 0.0005},
        Case{BlockType::kBF16, "BF16", 0.004}}) {
    const std::string name = quant::facts(one.type).name;
    SCOPED_TRACE(name);
    const auto target = scratch.path() / (name + ".gguf");
    const ConvertReport report = convert(source, target, Dialect::kGguf, one.type);
    EXPECT_FALSE(report.verification->exact);
    EXPECT_GT(report.verification->weight_error, 0.0);
    EXPECT_LT(report.verification->weight_error, one.weight_error);
    EXPECT_LT(report.verification->logit_error, 0.5);
    const auto file = checkpoint::GgufFile::open(target);
    EXPECT_STREQ(file.find("blk.0.attn_q.weight")->type->name, name.c_str());
    EXPECT_STREQ(file.find("token_embd.weight")->type->name, name.c_str());
    EXPECT_STREQ(file.find("output.weight")->type->name, one.head);
    EXPECT_STREQ(file.find("output_norm.weight")->type->name, "F32");
    // Blocks back to plain numbers lose nothing more.
    const ConvertReport back = convert(target, scratch.path() / name, Dialect::kHuggingFace);
    EXPECT_TRUE(back.verification->exact);
  }
}

TEST(Convert, ATiedEmbeddingIsTreatedAsTheHeadItIs) {
  const ScratchDirectory scratch;
  convert(wide_model(scratch, /*tied=*/true), scratch.path() / "x.gguf", Dialect::kGguf, BlockType::kQ4K);
  const auto file = checkpoint::GgufFile::open(scratch.path() / "x.gguf");
  EXPECT_STREQ(file.find("token_embd.weight")->type->name, "Q6_K");
  EXPECT_EQ(file.find("output.weight"), nullptr);
}

TEST(Convert, RowsThatAreNoWholeBlocksGetSmallerOnesOrF16AndANote) {
  const ScratchDirectory scratch;
  // hidden 32, intermediate 2730: no multiple of 32 either.
  const ConvertReport report =
      convert(kModels / "odd_widths", scratch.path() / "x.gguf", Dialect::kGguf, BlockType::kQ4K);
  const auto file = checkpoint::GgufFile::open(scratch.path() / "x.gguf");
  EXPECT_STREQ(file.find("blk.0.attn_q.weight")->type->name, "Q5_0");
  EXPECT_STREQ(file.find("blk.0.ffn_down.weight")->type->name, "F16");
  EXPECT_STREQ(file.find("output.weight")->type->name, "Q8_0");
  std::string notes;
  for (const std::string& note : report.notes) {
    notes += note + "\n";
  }
  for (const char* word : {"Q5_0 instead of Q4_K", "F16 instead of Q4_K", "Q8_0 instead of Q6_K"}) {
    EXPECT_NE(notes.find(word), std::string::npos) << notes;
  }
}

TEST(Convert, AFileInOtherTypesKeepsItsMetadataAndEqualBlocks) {
  const ScratchDirectory scratch;
  const auto source = wide_model(scratch);
  convert(source, scratch.path() / "a.gguf", Dialect::kGguf, BlockType::kQ41);
  const ConvertReport same = convert(scratch.path() / "a.gguf", scratch.path() / "b.gguf", Dialect::kGguf);
  EXPECT_TRUE(same.verification->exact);
  EXPECT_EQ(read_file(scratch.path() / "a.gguf"), read_file(scratch.path() / "b.gguf"));
  const ConvertReport again =
      convert(scratch.path() / "a.gguf", scratch.path() / "c.gguf", Dialect::kGguf, BlockType::kQ80);
  EXPECT_FALSE(again.verification->exact);
  EXPECT_NE(again.notes.back().find("quantised again"), std::string::npos);
  const auto file = checkpoint::GgufFile::open(scratch.path() / "c.gguf");
  EXPECT_EQ(file.metadata().integer("general.file_type"), 7);
  EXPECT_EQ(file.metadata().text("general.name"), "wide");
}

TEST(Convert, SafetensorsHoldNoBlocks) {
  const ScratchDirectory scratch;
  const std::string message = message_of<InputError>(
      [&] { convert(kModels / "tied", scratch.path() / "x", Dialect::kHuggingFace, BlockType::kQ40); });
  EXPECT_NE(message.find("Q4_0"), std::string::npos) << message;
  EXPECT_FALSE(std::filesystem::exists(scratch.path() / "x"));
}

TEST(Convert, WhatIsStoppedLeavesTheTargetAsItWas) {
  for (const char* stop : {"writing", "checking"}) {
    for (const Dialect dialect : {Dialect::kGguf, Dialect::kHuggingFace}) {
      const ScratchDirectory scratch;
      const auto target = scratch.path() / "target";
      convert(kModels / "tied", target, dialect);
      const auto one_file = dialect == Dialect::kGguf ? target : target / "model.safetensors";
      const std::string before = read_file(one_file);
      ops::Context ctx = context();
      ConvertOptions options;
      options.to = dialect;
      options.type = BlockType::kBF16;
      options.replace = true;
      options.progress = [&](const char* phase, std::int64_t, std::int64_t) {
        if (std::string(phase) == stop) {
          throw InputError("stopped");
        }
      };
      EXPECT_THROW(convert_model(ctx, open_model(kModels / "tied"), target, options), InputError);
      EXPECT_EQ(read_file(one_file), before);
      std::size_t entries = 0;
      for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(scratch.path())) {
        ++entries;
      }
      EXPECT_EQ(entries, 1U) << "something was left beside the target";
      options.replace = false;
      EXPECT_THROW(convert_model(ctx, open_model(kModels / "tied"), target, options), FileError);
    }
  }
}

// Files whose weights or configuration are not what they were made from, as mistakes of a writer would make them.
class Tampered {
 public:
  explicit Tampered(const std::filesystem::path& path) : files(open_model(path)) {}

  // The tensor's bytes as something to change.
  std::vector<std::byte>& bytes(const std::string& name) {
    for (std::size_t i = 0; i < files.tensors.size(); ++i) {
      if (files.arrangement.tensors[i].name == name) {
        copies_.emplace_back(files.tensors[i].bytes.begin(), files.tensors[i].bytes.end());
        files.tensors[i].bytes = copies_.back();
        return copies_.back();
      }
    }
    throw std::runtime_error("no tensor " + name);
  }

  ModelFiles files;

 private:
  std::deque<std::vector<std::byte>> copies_;
};

TEST(Verify, FindsOneFlippedBitTwoSwappedRowsAndALostScale) {
  const ScratchDirectory scratch;
  const auto source_path = wide_model(scratch);
  convert(source_path, scratch.path() / "same.gguf", Dialect::kGguf);
  convert(source_path, scratch.path() / "q4.gguf", Dialect::kGguf, BlockType::kQ40);
  convert(source_path, scratch.path() / "bf16.gguf", Dialect::kGguf, BlockType::kBF16);
  const ModelFiles source = open_model(source_path);
  ops::Context ctx = context();
  const auto refusal = [&](const char* file, const std::function<void(std::vector<std::byte>&)>& change) {
    Tampered result(scratch.path() / file);
    change(result.bytes("blk.1.attn_q.weight"));
    return message_of<FormatError>([&] { verify_conversion(ctx, source, result.files); });
  };
  const auto swap_rows = [](std::vector<std::byte>& bytes) {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(bytes.size()) / 256;
    std::swap_ranges(bytes.begin(), bytes.begin() + row, bytes.begin() + row);
  };
  EXPECT_EQ(refusal("same.gguf", [](auto&) {}), "");
  EXPECT_EQ(refusal("q4.gguf", [](auto&) {}), "");
  EXPECT_EQ(refusal("bf16.gguf", [](auto&) {}), "");
  for (const char* file : {"same.gguf", "q4.gguf", "bf16.gguf"}) {
    const std::string message = refusal(file, swap_rows);
    EXPECT_NE(message.find("model.layers.1.self_attn.q_proj.weight"), std::string::npos) << file << ": " << message;
    EXPECT_NE(message.find("nothing was kept"), std::string::npos) << message;
  }
  EXPECT_NE(refusal("same.gguf", [](auto& bytes) { bytes[5] ^= std::byte{1}; }), "");
  EXPECT_NE(refusal("bf16.gguf", [](auto& bytes) { bytes[5] ^= std::byte{1}; }), "");
  EXPECT_NE(refusal("q4.gguf", [](auto& bytes) { bytes[1] ^= std::byte{0x10}; }), "");  // the scale's exponent
}

TEST(Verify, FindsAConfigurationThatWasReadBackOtherwise) {
  const ScratchDirectory scratch;
  const auto source_path = wide_model(scratch);
  const ModelFiles source = open_model(source_path);
  ops::Context ctx = context();
  ModelFiles result = open_model(source_path);
  result.config.model.rope.theta *= 2.0;
  EXPECT_NE(message_of<FormatError>([&] { verify_conversion(ctx, source, result); }).find("configurations disagree"),
            std::string::npos);
  result.config.model.rope.theta /= 2.0;
  result.config.model.rms_norm_eps = 0.5;
  EXPECT_THROW(verify_conversion(ctx, source, result), FormatError);
}

}  // namespace
}  // namespace caravan::model_io
